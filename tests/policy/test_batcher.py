"""Batches in virtual time: full ones at once, waiting where it pays, by deadline, and never too large for memory."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.batcher import FIRST_HOLD, LONGEST_HOLD, Batcher, BatchLimits, CallTime, Waiting

TASKS = st.lists(
    st.tuples(
        st.floats(0, 0.2),  # seconds after the one before
        st.sampled_from("ab"),
        st.floats(0, 10),  # its cost
        st.none() | st.floats(0, 1),  # seconds until its deadline
    ),
    max_size=30,
)
LIMITS = st.builds(BatchLimits, st.integers(1, 8), st.floats(0, 0.1), st.floats(1, 20) | st.just(math.inf))
CALLS = st.tuples(st.floats(0, 0.2), st.floats(0, 0.05))
"""What a call takes: a and b of ``a + b·n``."""


@dataclass
class Simulated:
    """A skill in virtual time: what began when, with whom, and when it was free."""

    limits: BatchLimits
    fixed: float
    each: float
    now: float = 0.0
    busy_until: float = 0.0
    began: list = field(default_factory=list)

    def __post_init__(self):
        self.batcher = Batcher(self.limits)

    def pass_time(self, until):
        """Begin all batches that are due before ``until``."""
        while True:
            free = max(self.now, self.busy_until)
            due = self.batcher.due(free)
            at = math.inf if due is None else max(free, due)
            if at >= until:
                self.now = max(self.now, until) if until < math.inf else self.now
                return
            self.now = at
            batch = self.batcher.take(at)
            assert batch, "what is due can be taken"
            seconds = self.fixed + self.each * len(batch)
            self.began.append((at, batch, seconds))
            self.busy_until = at + seconds
            self.batcher.ran(batch[0].key, len(batch), seconds, self.busy_until)

    def arrive(self, tasks):
        """Let tasks arrive, and run to the end."""
        added = []
        for later, key, cost, left in tasks:
            at = self.now + later
            self.pass_time(at)
            deadline = math.inf if left is None else at + left
            task = Waiting(key, cost, at, deadline)
            self.batcher.add(task)
            added.append(task)
        self.pass_time(math.inf)
        return added


@given(LIMITS, CALLS, TASKS)
def test_every_task_runs_once_in_a_batch_within_the_limits(limits, call, tasks):
    simulated = Simulated(limits, *call)
    added = simulated.arrive(tasks)
    ran = [task for _, batch, _ in simulated.began for task in batch]
    assert sorted(map(id, ran)) == sorted(map(id, added))
    assert len(simulated.batcher) == 0
    for at, batch, _ in simulated.began:
        assert len({task.key for task in batch}) == 1
        assert len(batch) <= limits.max_size
        assert len(batch) == 1 or sum(task.cost for task in batch) <= limits.max_cost
        assert all(task.arrived <= at for task in batch)
        assert [task.urgency for task in batch] == sorted(task.urgency for task in batch)


@given(LIMITS, CALLS, TASKS)
def test_nothing_waits_for_longer_than_max_wait_while_the_skill_is_free(limits, call, tasks):
    simulated = Simulated(limits, *call)
    simulated.arrive(tasks)
    ends = 0.0
    for at, batch, seconds in simulated.began:
        oldest = min(task.arrived for task in batch)
        assert at <= max(ends, oldest + limits.max_wait) + 1e-9
        ends = at + seconds


@given(st.integers(1, 8), st.floats(0, 0.1), CALLS, st.lists(st.floats(0, 0.2), min_size=1, max_size=40), st.data())
def test_what_fits_into_one_batch_waits_for_max_wait_and_one_batch_at_most(most, max_wait, call, gaps, data):
    fixed, each = call
    longest = fixed + each * most
    simulated, arrived = Simulated(BatchLimits(most, max_wait), fixed, each), []
    for gap in gaps:  # never more than one batch of them at a time
        at = simulated.now + gap
        since = at - (longest + max_wait)
        if sum(each > since for each in arrived) >= most:
            at = max(at, sorted(arrived)[-most] + longest + max_wait)
        simulated.pass_time(at)
        arrived.append(at)
        simulated.batcher.add(Waiting("a", 1.0, at))
    simulated.pass_time(math.inf)
    for at, batch, _ in simulated.began:
        assert all(at - task.arrived <= max_wait + longest + 1e-9 for task in batch)


@given(LIMITS, CALLS, TASKS)
def test_no_batch_is_delayed_past_the_time_that_its_tightest_deadline_leaves(limits, call, tasks):
    batcher, now = Batcher(limits), 0.0
    for size in (1, 4):
        batcher.ran("a", size, call[0] + call[1] * size, now)
    for later, _, cost, left in tasks:
        now += later
        batcher.add(Waiting("a", cost, now, math.inf if left is None else now + left))
        due, batch = batcher.due(now), None
        if due > now:  # it waits: then the batch with one more would still end in time
            batch = batcher.take(due)
            assert all(due + call[0] + call[1] * len(batch) <= task.deadline + 1e-6 for task in batch)
        else:
            batcher.take(now)


def test_a_lone_task_begins_at_once_however_long_calls_take():
    simulated = Simulated(BatchLimits(16, 0.02), fixed=0.05, each=0.01)
    simulated.arrive([(1.0, "a", 1.0, None)] * 20)
    assert [at for at, _, _ in simulated.began] == [task.arrived for _, (task,), _ in simulated.began]


def test_tasks_that_come_faster_than_calls_end_are_gathered():
    simulated = Simulated(BatchLimits(16, 0.02), fixed=0.02, each=0.001)
    simulated.arrive([(0.002, "a", 1.0, None)] * 400)
    sizes = [len(batch) for _, batch, _ in simulated.began]
    assert sum(sizes) / len(sizes) > 8  # each alone, it would be 50 calls a second for 500 tasks a second


def test_a_stream_of_urgent_tasks_does_not_starve_the_others():
    simulated = Simulated(BatchLimits(2, 0.0), fixed=0.1, each=0.0)
    (patient, *_) = simulated.arrive([(0.0, "a", 1.0, None)] + [(0.04, "a", 1.0, 0.5)] * 1000)
    (at,) = [at for at, batch, _ in simulated.began if patient in batch]
    assert at < 12.0


def test_a_task_that_weighs_more_than_a_batch_may_is_alone_in_its():
    batcher = Batcher(BatchLimits(8, 1.0, max_cost=10.0))
    for cost in (4.0, 4.0, 4.0, 99.0, 1.0):
        batcher.add(Waiting("a", cost, 0.0))
    assert [[task.cost for task in batcher.take(0.0)] for _ in range(4)] == [[4.0, 4.0], [4.0], [99.0], [1.0]]


@given(st.floats(0.001, 10), st.floats(0, 1), st.lists(st.integers(1, 64), min_size=2, max_size=30))
def test_the_time_of_calls_is_fitted(fixed, each, sizes):
    fitted = CallTime()
    for size in (1, 64, *sizes):
        fitted.add(size, fixed + each * size)
    a, b = fitted.fit
    assert math.isclose(a, fixed, rel_tol=1e-3, abs_tol=1e-3)
    assert math.isclose(b, each, rel_tol=1e-3, abs_tol=1e-3)


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 1e6)), max_size=30))
def test_a_fit_is_never_negative(calls):
    fitted = CallTime()
    for size, seconds in calls:
        fitted.add(size + 1, seconds)
    a, b = fitted.fit
    assert a >= -1e-6
    assert b >= 0


# ---------------------------------------------------------------------------------------------- memory


def fill(batcher, count, now):
    """Let tasks come and return how many are in the batch that begins."""
    for _ in range(count - len(batcher)):
        batcher.add(Waiting("a", 1.0, now))
    return len(batcher.take(now))


def test_a_size_that_runs_out_of_memory_is_halved_remembered_and_tried_again_later():
    batcher = Batcher(BatchLimits(32, 0.0))
    assert fill(batcher, 99, 0.0) == 32
    batcher.ran_out("a", 32, 0.0)
    assert batcher.size_limit("a") == 16
    assert fill(batcher, 99, FIRST_HOLD - 1) == 16
    assert fill(batcher, 99, FIRST_HOLD) == 24
    batcher.ran_out("a", 24, FIRST_HOLD)  # what worked before still does
    assert batcher.size_limit("a") == 16
    assert fill(batcher, 99, FIRST_HOLD + 2 * FIRST_HOLD - 1) == 16
    assert fill(batcher, 99, FIRST_HOLD + 2 * FIRST_HOLD) == 20
    batcher.ran("a", 20, 1.0, 200.0)
    assert batcher.size_limit("a") == 20
    assert fill(batcher, 99, 200.0 + FIRST_HOLD) == 22


def test_the_limit_grows_back_to_all_once_there_is_memory_again():
    batcher, now = Batcher(BatchLimits(32, 0.0)), 0.0
    batcher.ran_out("a", 32, now)
    batcher.ran_out("a", 16, now)
    for _ in range(12):
        now += FIRST_HOLD
        batcher.ran("a", fill(batcher, 99, now), 1.0, now)
    assert batcher.size_limit("a") == 32


@given(st.integers(1, 64), st.integers(0, 64), st.lists(st.floats(0, 2 * LONGEST_HOLD), max_size=60))
def test_the_limit_settles_below_what_does_not_fit(most, room, gaps):
    batcher, now = Batcher(BatchLimits(most, 0.0)), 0.0
    for gap in gaps:
        now += gap
        size = fill(batcher, 99, now)
        assert 1 <= size <= most
        if size > max(1, room):
            batcher.ran_out("a", size, now)
        else:
            batcher.ran("a", size, 1.0, now)
            assert batcher.size_limit("a") >= min(size, room)


def test_keys_have_limits_of_their_own_and_are_forgotten_when_there_are_many():
    batcher = Batcher(BatchLimits(8, 0.0))
    batcher.ran_out("a", 8, 0.0)
    assert (batcher.size_limit("a"), batcher.size_limit("b")) == (4, 8)
    for number in range(500):
        batcher.add(Waiting(number, 1.0, 0.0))
        batcher.take(0.0)
    assert batcher.size_limit("a") == 8


def test_a_task_that_no_longer_waits_is_in_no_batch():
    batcher = Batcher(BatchLimits(8, 0.0))
    first, second = Waiting("a", 1.0, 0.0), Waiting("a", 1.0, 0.0)
    batcher.add(first)
    batcher.add(second)
    batcher.remove(first)
    assert batcher.take(0.0) == [second]
    assert batcher.due(0.0) is None
    with pytest.raises(ValueError, match="not in list"):
        batcher.remove(first)


def waiting_for_more(*, each=0.0, deadline=math.inf, max_wait=0.5):
    """Return a batcher in which two tasks wait, 10 ms apart, for calls that take a second and ``each`` per task."""
    batcher = Batcher(BatchLimits(8, max_wait))
    for size in (1, 4):
        batcher.ran("a", size, 1.0 + each * size, 0.0)
    for at in (0.0, 0.01):
        batcher.add(Waiting("a", 1.0, at, deadline))
    return batcher


def test_tasks_that_come_quickly_wait_for_more_where_a_call_takes_long():
    batcher = waiting_for_more()
    assert batcher.due(0.01) == pytest.approx(0.11)  # a tenth of a call after the last
    assert batcher.take(0.1) == []
    assert len(batcher.take(0.12)) == 2


def test_they_wait_no_longer_than_a_batch_with_one_more_leaves_until_the_deadline():
    batcher = waiting_for_more(each=0.1, deadline=1.35)
    assert batcher.due(0.01) == pytest.approx(1.35 - 1.3)


def test_they_do_not_wait_if_no_other_task_is_expected_in_time():
    assert waiting_for_more(max_wait=0.011).due(0.01) == 0.01


def test_waiting_ends_where_it_costs_as_much_as_a_call():
    batcher = Batcher(BatchLimits(8, 5.0))
    batcher.ran("a", 1, 1.0, 0.0)
    for at in (0.0, 0.5):
        batcher.add(Waiting("a", 1.0, at))
    assert batcher.due(0.5) == 0.5


def test_the_time_of_a_call_grows_with_its_size():
    calls = CallTime()
    for size in (1, 3):
        calls.add(size, 1.0 + size)
    assert calls.of(5) == pytest.approx(6.0)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_of_two_or_three_that_run_out_of_memory_one_is_left(size):
    batcher = Batcher(BatchLimits(3, 0.0))
    batcher.ran_out("a", size, 0.0)
    assert batcher.size_limit("a") == 1


def test_calls_of_the_size_that_fits_do_not_put_off_a_larger_one():
    batcher = Batcher(BatchLimits(32, 0.0))
    batcher.ran_out("a", 32, 0.0)
    batcher.ran("a", 16, 1.0, FIRST_HOLD - 1)
    assert fill(batcher, 99, FIRST_HOLD) == 24


@pytest.mark.parametrize(("others", "limit"), [(127, 4), (128, 8)])
def test_a_key_is_forgotten_when_128_others_were_used_since(others, limit):
    batcher = Batcher(BatchLimits(8, 0.0))
    batcher.ran_out("a", 8, 0.0)
    for number in range(others):
        batcher.add(Waiting(number, 1.0, 0.0))
        batcher.take(0.0)
    assert batcher.size_limit("a") == limit


def test_between_a_size_that_fits_and_the_next_that_does_not_the_next_is_tried():
    batcher = Batcher(BatchLimits(8, 0.0))
    batcher.ran_out("a", 2, 0.0)
    assert fill(batcher, 99, FIRST_HOLD) == 2


def test_a_size_that_fitted_when_it_was_tried_again_is_kept_for_a_minute():
    batcher = Batcher(BatchLimits(32, 0.0))
    batcher.ran_out("a", 32, 0.0)
    batcher.ran("a", 24, 1.0, FIRST_HOLD)
    assert fill(batcher, 99, FIRST_HOLD) == 24
    assert fill(batcher, 99, 2 * FIRST_HOLD - 1) == 24
    assert fill(batcher, 99, 2 * FIRST_HOLD) == 28


def test_when_the_size_that_failed_fits_the_next_is_halfway_to_the_most():
    batcher = Batcher(BatchLimits(16, 0.0))
    batcher.ran_out("a", 2, 0.0)
    batcher.ran("a", 2, 1.0, FIRST_HOLD)
    assert fill(batcher, 99, 2 * FIRST_HOLD) == 9


def arriving(limits, *arrived, cost=1.0):
    """Return a batcher in which tasks wait that arrived then, for calls that take a second."""
    batcher = Batcher(limits)
    batcher.ran("a", 1, 1.0, 0.0)
    for at in arrived:
        batcher.add(Waiting("a", cost, at))
    return batcher


def test_tasks_wait_for_as_long_as_others_are_expected_at_any_time():
    assert arriving(BatchLimits(8, 5.0), 1000.0, 1000.25).due(1000.25) == 1000.75  # two gaps after the last


def test_only_the_latest_gaps_count():
    batcher = arriving(BatchLimits(64, 5.0))
    slow = [10.0 * number for number in range(30)]
    for at in slow:
        batcher.add(Waiting("a", 1.0, at))
        assert len(batcher.take(at)) == 1, "nobody else is expected in time"
    for number in range(1, 16):
        batcher.add(Waiting("a", 1.0, slow[-1] + number / 64))
    assert batcher.due(slow[-1] + 15 / 64) == pytest.approx(slow[-1] + 15 / 64 + 0.1)


def test_a_task_that_is_expected_at_the_last_moment_is_waited_for_and_no_longer():
    assert arriving(BatchLimits(8, 0.5), 0.0, 0.25).due(0.25) == 0.5


def test_tasks_that_cost_the_most_together_are_a_full_batch():
    batcher = arriving(BatchLimits(8, 5.0, max_cost=10.0), 0.0, 0.25, cost=5.0)
    assert batcher.due(0.25) == 0.25
    assert len(batcher.take(0.25)) == 2


def test_a_batch_that_the_next_task_does_not_fit_in_is_full():
    batcher = arriving(BatchLimits(8, 5.0, max_cost=10.0), 0.0, 0.25, cost=6.0)
    assert batcher.due(0.25) == 0.25
    assert len(batcher.take(0.25)) == 1


@pytest.mark.parametrize("count", [2, 3])
def test_a_batch_of_the_most_tasks_is_full(count):
    arrived = [0.0, 0.25, 0.25][:count]
    assert arriving(BatchLimits(2, 5.0), *arrived).due(0.25) == 0.25
