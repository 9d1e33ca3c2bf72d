"""Devices are shared out to processes: never more of one than there is, and whoever waits gets its turn."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.device_shares import DeviceShares, fits, most_at_once

GPUS = st.one_of(st.integers(1, 4), st.floats(0.01, 1), st.sampled_from([0.5, 1 / 3, 0.3, 0.1, 1 / 7]))
COMBINABLE = st.lists(st.booleans(), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("gpus", "devices", "expected"),
    [
        (0.5, 2, 4),
        (1, 3, 3),
        (2, 3, 1),
        (2, 1, 0),
        (0.3, 1, 3),
        (1 / 3, 1, 3),
        (1 / 6, 2, 12),
        (0.6, 2, 2),
        (0.1, 1, 10),
    ],
)
def test_a_limited_number_of_processes_is_on_the_devices_at_once(gpus, devices, expected):
    assert most_at_once(gpus, [True] * devices) == expected


@given(GPUS, st.integers(1, 6))
def test_a_share_counts_as_it_is_written(gpus, devices):
    each = int(1 / gpus) if gpus < 1 else None
    expected = devices // int(gpus) if each is None else devices * each
    if gpus >= 1 or Fraction(gpus).denominator < 2**40:  # floats such as 1/49 are not what they stand for
        assert most_at_once(gpus, [True] * devices) >= expected
    assert most_at_once(gpus, [True] * devices) * gpus <= devices * 1.02


def test_shares_go_where_the_most_is_left_and_where_others_are_if_whole_devices_are_wanted():
    spread, packed = DeviceShares([True] * 2), DeviceShares([True] * 2, pack=True)
    assert [spread.take(0.5) for _ in range(5)] == [(0,), (1,), (0,), (1,), None]
    assert [packed.take(0.5) for _ in range(5)] == [(0,), (0,), (1,), (1,), None]


def test_what_is_given_back_is_given_to_the_next():
    shares = DeviceShares([True] * 2)
    assert shares.take(1) == (0,)
    assert shares.take(1) == (1,)
    shares.give_back(1, (0,))
    assert shares.take(1) == (0,)
    shares.give_back(1, (1,))
    with pytest.raises(RuntimeError, match="device 1 is given back, and was not taken"):
        shares.give_back(0.5, (1,))


def test_instances_are_not_combined():
    shares = DeviceShares([False, True, False, True])
    assert shares.take(2) == (1, 3)
    assert [shares.take(1) for _ in range(3)] == [(0,), (2,), None]
    assert most_at_once(2, [False] * 7) == 0


@given(COMBINABLE, st.booleans(), st.lists(st.tuples(st.booleans(), GPUS, st.integers(0)), max_size=40))
def test_no_device_is_ever_taken_more_than_once(combinable, pack, steps):
    shares, held = DeviceShares(combinable, pack=pack), []
    for takes, gpus, which in steps:
        if takes:
            free = shares.free
            devices = shares.take(gpus)
            if devices is None:
                usable = [left for left, whole in zip(free, combinable, strict=True) if whole or gpus <= 1]
                assert len([left for left in usable if left >= min(gpus, 1)]) < max(1, int(gpus))
            else:
                assert len(set(devices)) == len(devices) == max(1, int(gpus))
                assert len(devices) == 1 or all(combinable[each] for each in devices)
                held.append((gpus, devices))
        elif held:
            shares.give_back(*held.pop(which % len(held)))
        taken = [sum(min(gpus, 1) for gpus, of in held if device in of) for device in range(len(combinable))]
        assert all(each <= 1.02 for each in taken)  # a hundred shares of 1/100 and less, rounded
        assert all(0 <= each <= 1 for each in shares.free)
    for each in held:
        shares.give_back(*each)
    assert set(shares.free) == {1.0}


@given(COMBINABLE, st.booleans(), st.lists(GPUS, max_size=12), st.data())
def test_a_waiting_process_gets_a_turn_once_the_running_ones_have_ended(combinable, pack, others, data):
    """No process is started for those behind it, and what is idle and needed ends: eventually it fits."""
    gpus = data.draw(GPUS.filter(lambda each: most_at_once(each, combinable)))
    shares = DeviceShares(combinable, pack=pack)
    running = [(each, devices) for each in others if (devices := shares.take(each)) is not None]
    idle, leaving = [], []
    while (found := shares.take(gpus)) is None:
        chosen = shares.reclaim(gpus, leaving, idle)
        leaving += [idle[each] for each in chosen]
        idle = [each for position, each in enumerate(idle) if position not in chosen]
        assert leaving or running, "all that is there is idle, and nothing of it ends"
        if leaving and (not running or data.draw(st.booleans())):
            shares.give_back(*leaving.pop(data.draw(st.integers(0, len(leaving) - 1))))
        else:
            idle.append(running.pop(data.draw(st.integers(0, len(running) - 1))))
    assert len(found) == max(1, int(gpus))


def test_no_more_processes_end_than_necessary():
    shares = DeviceShares([True] * 3)
    idle = [(0.5, shares.take(0.5)) for _ in range(6)]  # on 0, 1, 2, 0, 1, 2
    assert shares.reclaim(0.5, [], idle) == [0]
    assert shares.reclaim(1, [], idle) == [0, 3]
    assert shares.reclaim(2, [], idle) == [0, 1, 3, 4]
    assert shares.reclaim(1, [idle[3]], idle[:3]) == [0], "what is ending already counts"
    assert shares.reclaim(0.5, [idle[5]], idle[:5]) == [], "that is enough"
    shares.give_back(*idle[5])
    assert shares.reclaim(1, [], idle[:5]) == [2], "there is less to end"


def test_what_is_free_already_counts_beside_what_is_given_back():
    shares = DeviceShares([True])
    first, second, third = [(share, shares.take(share)) for share in (0.2, 0.2, 0.4)]  # 0.2 is left
    assert shares.reclaim(0.6, [], [first, second, third]) == [0, 1]
    assert shares.reclaim(0.6, [first], [second, third]) == [0]


@given(st.lists(GPUS, max_size=8), COMBINABLE)
def test_what_fits_finds_its_devices(wanted, combinable):
    if fits(wanted, combinable):
        shares = DeviceShares(combinable, pack=True)
        assert None not in [shares.take(each) for each in sorted(wanted, reverse=True)]
        assert sum(wanted) <= len(combinable) * 1.02


def test_parts_are_fitted_together():
    assert fits([0.5, 1, 0.5], [True, True])
    assert not fits([0.5, 1, 0.5, 0.1], [True, True])
    assert not fits([2, 0.5], [True, True])
    assert not fits([1], [])


def test_parts_are_packed_the_largest_first():
    assert fits([0.3, 0.5, 0.3, 0.5, 0.3], [True, True]), "the halves are on one device"
    assert fits([0.4, 0.4, 0.6, 0.6], [True, True]), "the large ones get a device each"


@pytest.mark.parametrize(("gpus", "left"), [(0.5, 0.5), (0.3, 0.7), (0.29, 0.71), (1, 0.0)])
def test_a_share_takes_exactly_its_part(gpus, left):
    shares = DeviceShares([True])
    shares.take(gpus)
    assert shares.free == (left,)


def test_what_is_idle_on_a_device_that_cannot_be_combined_ends_for_a_task_on_one():
    shares = DeviceShares([False])
    idle = [(1, shares.take(1))]
    assert shares.reclaim(1, [], idle) == [0]
