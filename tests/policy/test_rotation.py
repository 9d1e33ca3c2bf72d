"""Who is asked next: priority, shares, failover."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.capacity import Capacity, Limits
from avtomatika_worker.policy.rotation import Candidate, Mode, Rotation

candidates = st.lists(
    st.builds(Candidate, wants=st.booleans(), reachable=st.booleans(), in_flight=st.integers(0, 20)),
    min_size=1,
    max_size=5,
)


@given(candidates, st.sampled_from(Mode), st.data())
def test_only_candidates_that_want_a_task_are_chosen_and_one_is_if_any_may_be(some, mode, data):
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(some), max_size=len(some)))
    chosen = Rotation(mode, weights).next(some)
    if chosen is not None:
        assert some[chosen].wants
    elif mode is not Mode.FAILOVER:
        assert not any(each.wants for each in some)


@given(candidates)
def test_waterfall_takes_the_first_that_wants(some):
    chosen = Rotation(Mode.WATERFALL, [1] * len(some)).next(some)
    assert chosen == next((i for i, each in enumerate(some) if each.wants), None)


@given(candidates)
def test_failover_asks_no_other_while_an_earlier_one_is_reachable(some):
    chosen = Rotation(Mode.FAILOVER, [1] * len(some)).next(some)
    if chosen is not None:
        assert not any(each.reachable for each in some[:chosen])


@given(st.lists(st.integers(1, 10), min_size=2, max_size=4))
def test_round_robin_shares_by_weight_and_smoothly(weights):
    rotation = Rotation(Mode.ROUND_ROBIN, weights)
    everyone = [Candidate(wants=True) for _ in weights]
    got = Counter()
    for number in range(1, 5 * sum(weights) + 1):
        chosen = rotation.next(everyone)
        rotation.got_task(chosen)
        got[chosen] += 1
        # Served are floor(v w) + 1 tasks each when the slowest clock is at v: so never more than one too many,
        for index, weight in enumerate(weights):  # and too few only by what the others had of their first one.
            share = weight / sum(weights)
            assert -len(weights) * share - 1e-6 <= got[index] - number * share <= 1 + 1e-6


def test_idle_time_earns_no_credit():
    rotation = Rotation(Mode.ROUND_ROBIN, [1, 1])
    for _ in range(100):
        rotation.got_task(0)
    both = [Candidate(wants=True), Candidate(wants=True)]
    got = Counter()
    for _ in range(20):
        chosen = rotation.next(both)
        rotation.got_task(chosen)
        got[chosen] += 1
    assert got[0] >= 9


LIMITS = Limits({"a": 1, "b": 3}, {"gpu": 2}, {"a": "gpu", "b": "gpu", "c": "cpu"})


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_no_limit_is_ever_exceeded_and_what_is_given_back_can_be_taken_again(skills):
    capacity, running = Capacity(LIMITS), Counter()
    for skill in skills:
        if capacity.has_room(skill):
            capacity.take(skill)
            running[skill] += 1
        else:
            with pytest.raises(RuntimeError, match="no room"):
                capacity.take(skill)
    assert running["a"] <= 1
    assert running["b"] <= 3
    assert running["a"] + running["b"] <= 2
    assert running["c"] == skills.count("c")
    for skill, count in running.items():
        for _ in range(count):
            capacity.give_back(skill)
        with pytest.raises(RuntimeError, match="no task"):
            capacity.give_back(skill)
    assert all(map(capacity.has_room, "abc"))


def test_round_robin_counts_polls_in_flight_as_tasks_to_come():
    rotation = Rotation(Mode.ROUND_ROBIN, [1, 1])
    assert rotation.next([Candidate(wants=True, in_flight=1), Candidate(wants=True)]) == 1
    weighted = Rotation(Mode.ROUND_ROBIN, [4, 1])
    assert weighted.next([Candidate(wants=True, in_flight=3), Candidate(wants=True, in_flight=1)]) == 0


def test_round_robin_counts_a_task_that_came_as_much_as_a_poll_in_flight():
    rotation = Rotation(Mode.ROUND_ROBIN, [1, 1])
    rotation.got_task(1)
    assert rotation.next([Candidate(wants=True, in_flight=2), Candidate(wants=True)]) == 1
