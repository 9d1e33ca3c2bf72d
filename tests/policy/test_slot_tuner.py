"""Slots by resource: never outside of their bounds, fewer under pressure, more again slowly, no going up and down."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.slot_tuner import (
    FIRST_HOLD,
    GROW_EVERY,
    HEADROOM,
    SHRINK_EVERY,
    SMOOTHING,
    Load,
    SlotTuner,
    TunerPolicy,
)
from avtomatika_worker.policy.slots import Slots

PERCENT = st.floats(0, 100)
BOUNDS = st.integers(1, 200).flatmap(lambda most: st.tuples(st.integers(1, most), st.just(most)))
CALM, FULL = Load(memory=10, cpu=10), Load(memory=99, cpu=10)


def sizes(tuner, load, seconds, *, running=lambda usable: usable, start=0):
    """Return the number of usable slots in each second under ``load``, or under what ``load(running)`` makes it."""
    found = []
    for now in range(start, start + seconds):
        busy = running(tuner.usable)
        found.append(tuner.look(load(busy) if callable(load) else load, busy, float(now)))
    return found


@given(BOUNDS, st.lists(st.tuples(PERCENT, PERCENT, st.integers(0, 200), st.floats(0, 100)), max_size=100))
def test_the_slots_stay_within_their_bounds_whatever_the_load(bounds, looks):
    least, most = bounds
    tuner, now = SlotTuner(TunerPolicy(least, most)), 0.0
    for memory, cpu, running, later in looks:
        now += later
        before = tuner.usable
        usable = tuner.look(Load(memory, cpu), running, now)
        assert least <= usable <= most
        assert usable >= before // 2  # at most halved at a time
        assert usable - before <= max(1, before // 10)  # grows by a tenth at most


@given(BOUNDS, PERCENT, PERCENT, st.integers(0, 200))
def test_under_a_steady_load_the_slots_go_one_way_only(bounds, memory, cpu, running):
    tuner = SlotTuner(TunerPolicy(*bounds))
    found = sizes(tuner, Load(memory, cpu), 200, running=lambda _: running)
    assert found == sorted(found) or found == sorted(found, reverse=True)


def test_a_device_whose_memory_is_short_takes_slots_too_and_gives_them_back():
    tuner = SlotTuner(TunerPolicy(1, 8))
    short = Load(memory=10, cpu=10, device=97)
    assert sizes(tuner, short, 20)[-1] == 1
    assert tuner.short_of(short) == "a GPU's memory is at 97 % (target 95 %)"
    assert sizes(tuner, Load(memory=10, cpu=10, device=93), 100, start=100)[-1] == 1  # neither short nor well below
    assert sizes(tuner, Load(memory=10, cpu=10, device=60), 600, start=1000)[-1] == 8


@given(BOUNDS, st.floats(80.5, 100), st.integers(0, 200))
def test_pressure_takes_the_slots_down_to_the_least(bounds, memory, running):
    least, most = bounds
    tuner = SlotTuner(TunerPolicy(least, most))
    found = sizes(tuner, Load(memory, 0), int(SHRINK_EVERY) * most + 1, running=lambda _: min(running, most))
    assert found[-1] == least


@given(BOUNDS)
def test_when_pressure_is_over_all_slots_come_back_one_step_at_a_time(bounds):
    least, most = bounds
    tuner = SlotTuner(TunerPolicy(least, most))
    start = int(SHRINK_EVERY) * most + 1
    sizes(tuner, FULL, start)
    calm = int(FIRST_HOLD + GROW_EVERY * most)
    found = sizes(tuner, CALM, calm, start=start)
    assert found[-1] == most
    steps = [second for second in range(1, calm) if found[second] != found[second - 1]]
    assert all(later - earlier >= GROW_EVERY for earlier, later in itertools.pairwise(steps))


@given(st.integers(2, 60), st.floats(0, 60), st.floats(1, 60))
def test_tasks_that_each_take_a_lot_do_not_make_it_swing(most, base, each):
    tuner = SlotTuner(TunerPolicy(1, most))
    hour = sizes(tuner, lambda running: Load(min(100.0, base + each * running), 0), 3600)
    settled = hour[1800:]
    changes = sum(earlier != later for earlier, later in itertools.pairwise(settled))
    tries = 1800 // 900 + 1  # one for each of the longest holds
    assert changes <= tries * 8
    short = sum(base + each * usable > 80 for usable in settled)
    assert short <= tries * 4 * SHRINK_EVERY or base + each > 80


def test_running_tasks_are_what_is_shrunk_from():
    tuner = SlotTuner(TunerPolicy(1, 10))
    assert tuner.look(FULL, 9, 0.0) == 8
    assert tuner.look(FULL, 8, 1.0) == 8  # give the first step time to show
    assert tuner.look(FULL, 2, SHRINK_EVERY) == 4


def test_a_peak_of_the_cpu_is_not_a_shortage_but_a_lasting_load_is():
    tuner = SlotTuner(TunerPolicy(1, 10))
    assert tuner.look(Load(0, 20), 10, 0.0) == 10
    assert tuner.look(Load(0, 100), 10, 1.0) == 10
    found = sizes(tuner, Load(0, 100), int(4 * SMOOTHING), start=2)
    assert found[-1] < 10


@pytest.mark.parametrize("load", [Load(80 - HEADROOM + 1, 0), Load(0, 90 - HEADROOM + 1)])
def test_just_below_a_target_nothing_changes(load):
    tuner = SlotTuner(TunerPolicy(1, 10))
    usable = tuner.look(Load(99, load.cpu), 5, 0.0)
    assert sizes(tuner, load, 600, start=1)[-1] == usable < 10


def test_what_is_short_is_named():
    tuner = SlotTuner(TunerPolicy(1, 10, memory_target=70, cpu_target=50))
    tuner.look(Load(71, 99), 5, 0.0)
    assert tuner.short_of(Load(71, 99)) == "memory is at 71 % (target 70 %)"
    assert tuner.short_of(Load(10, 99)) == "the CPU is at 99 % (target 50 %)"
    assert SlotTuner(TunerPolicy(1, 10)).short_of(CALM) is None


@pytest.mark.parametrize(("least", "most"), [(0, 1), (3, 2)])
def test_invalid_bounds_are_refused(least, most):
    with pytest.raises(ValueError, match="slot limits"):
        SlotTuner(TunerPolicy(least, most))


@given(st.integers(1, 20), st.lists(st.one_of(st.integers(-1, 25), st.sampled_from(["reserve", "start", "finish"]))))
def test_held_back_slots_are_not_taken_and_what_runs_goes_on(total, steps):
    slots = Slots(total)
    for step in steps:
        running, free = slots.running, slots.free
        try:
            slots.limit(step) if isinstance(step, int) else getattr(slots, step)()
        except (RuntimeError, ValueError):
            assert isinstance(step, int) or step != "reserve" or free == 0
            continue
        if isinstance(step, int):
            assert slots.running == running
        assert slots.free + slots.polling + slots.running + slots.held_back == total
        assert min(slots.free, slots.held_back) >= 0
        if slots.free:
            assert slots.free + slots.polling + slots.running == slots.usable


def test_at_its_target_a_load_is_not_short():
    tuner = SlotTuner(TunerPolicy(1, 10))
    assert tuner.look(Load(80, 90, 95), 10, 0.0) == 10
    assert tuner.look(Load(80.5, 0), 10, 1.0) == 9


def test_at_its_headroom_a_load_lets_the_slots_grow():
    tuner = SlotTuner(TunerPolicy(1, 10))
    assert tuner.look(FULL, 10, 0.0) == 9
    edge = Load(80 - HEADROOM, 0)
    assert tuner.look(edge, 9, FIRST_HOLD) == 10


def test_the_cpus_load_is_averaged_by_the_time_between_two_looks():
    tuner = SlotTuner(TunerPolicy(1, 10, cpu_target=25))
    tuner.look(Load(0, 20), 10, 0.0)
    tuner.look(Load(0, 100), 10, SMOOTHING / 10)
    assert tuner.short_of(Load(0, 100)) == "the CPU is at 28 % (target 25 %)"


@pytest.mark.parametrize(("before", "running", "after"), [(9, 1, 4), (9, 7, 6), (9, 9, 8), (9, 20, 8), (2, 0, 1)])
def test_a_step_down_goes_to_what_runs_and_halves_at_most(before, running, after):
    assert SlotTuner(TunerPolicy(1, before)).look(FULL, running, 0.0) == after


def test_a_number_that_was_too_high_is_not_tried_again_for_a_minute_however_early_that_was():
    tuner = SlotTuner(TunerPolicy(1, 3))
    assert tuner.look(FULL, 3, 0.0) == 2
    for now in (10.0, 20.0, FIRST_HOLD - 1):
        assert tuner.look(CALM, 2, now) == 2
    assert tuner.look(CALM, 2, FIRST_HOLD) == 3


def test_a_number_that_is_too_high_again_is_not_tried_for_twice_as_long():
    tuner = SlotTuner(TunerPolicy(1, 3))
    tuner.look(FULL, 3, 0.0)
    tuner.look(CALM, 2, FIRST_HOLD)
    again = FIRST_HOLD + SHRINK_EVERY
    assert tuner.look(FULL, 3, again) == 2
    assert tuner.look(CALM, 2, again + 2 * FIRST_HOLD - 1) == 2
    assert tuner.look(CALM, 2, again + 2 * FIRST_HOLD) == 3


def test_slots_grow_by_one_where_a_tenth_is_less():
    tuner = SlotTuner(TunerPolicy(1, 15))
    sizes(tuner, FULL, 20, running=lambda _: 0)
    found = sizes(tuner, CALM, 12, start=1000)
    assert found == [2] * 5 + [3] * 5 + [4] * 2


def test_slots_grow_beyond_a_number_that_was_too_high_once():
    tuner = SlotTuner(TunerPolicy(1, 20))
    sizes(tuner, FULL, 20, running=lambda _: 0)
    sizes(tuner, CALM, 21, start=1000)
    assert tuner.usable == 6
    tuner.look(FULL, 6, 1030.0)
    assert tuner.usable == 5
    assert sizes(tuner, CALM, 300, start=2000)[-1] == 20


def test_at_its_target_no_load_is_named():
    assert SlotTuner(TunerPolicy(1, 10)).short_of(Load(80, 90, 95)) is None


def test_pressure_at_the_least_does_not_put_off_growing():
    tuner = SlotTuner(TunerPolicy(1, 2))
    assert sizes(tuner, FULL, int(FIRST_HOLD)) == [1] * int(FIRST_HOLD)
    assert tuner.look(CALM, 1, FIRST_HOLD) == 2


def test_after_a_long_time_the_cpus_load_is_that_of_now():
    tuner = SlotTuner(TunerPolicy(1, 10, cpu_target=50))
    tuner.look(Load(0, 20), 10, 0.0)
    tuner.look(Load(0, 60), 10, 2 * SMOOTHING)
    assert tuner.short_of(Load(0, 60)) == "the CPU is at 60 % (target 50 %)"


def test_the_cpus_load_is_averaged_the_same_at_any_time():
    tuner = SlotTuner(TunerPolicy(1, 10, cpu_target=25))
    tuner.look(Load(0, 20), 10, 1000.0)
    tuner.look(Load(0, 100), 10, 1000.0 + SMOOTHING / 10)
    assert tuner.short_of(Load(0, 100)) == "the CPU is at 28 % (target 25 %)"


def test_a_number_that_held_for_as_long_as_it_was_not_tried_is_too_high_for_the_first_time_again():
    tuner = SlotTuner(TunerPolicy(1, 3))
    assert tuner.look(FULL, 3, 0.0) == 2
    assert tuner.look(CALM, 2, FIRST_HOLD) == 3
    assert tuner.look(FULL, 3, 2 * FIRST_HOLD) == 2
    assert tuner.look(CALM, 2, 3 * FIRST_HOLD) == 3


def test_slots_grow_by_a_tenth():
    tuner = SlotTuner(TunerPolicy(1, 40))
    assert tuner.look(FULL, 0, 0.0) == 20
    assert tuner.look(CALM, 20, FIRST_HOLD) == 22
