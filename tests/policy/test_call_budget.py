"""Budgets of calls: what can be coalesced stays within any limit that is assumed, and thins out; the rest is learnt."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.call_budget import HORIZON, UNLIMITED, CallBudget, CallLimit


class Orchestrator:
    """Counts as released orchestrators do: every call, refused or not, restarts the window (observed)."""

    def __init__(self, calls: int, window: float = 60.0) -> None:
        self.refusals = 0
        self._calls = calls
        self._window = window
        self._count = 0
        self._last = -math.inf

    def takes(self, now: float) -> bool:
        if now - self._last >= self._window:
            self._count = 0
        self._last = now
        self._count += 1
        self.refusals += self._count > self._calls
        return self._count <= self._calls


def call(budget: CallBudget, orchestrator: Orchestrator, now: float) -> bool:
    budget.spend(now)
    if orchestrator.takes(now):
        budget.taken()
        return True
    budget.refused(now)
    return False


def streamed(budget: CallBudget, orchestrator: Orchestrator, *, begin: float, seconds: float, streams: int):
    """Let streams run side by side; return when each sent, and send the last of each whatever is left."""
    at = [[] for _ in range(streams)]
    now = begin
    while now < begin + seconds:
        for each in at:
            interval = budget.interval(now, streams)
            if not math.isinf(interval) and now - (each[-1] if each else -math.inf) >= interval:
                call(budget, orchestrator, now)
                each.append(now)
        now += 0.05
    for each in at:
        if budget.must_wait(now) == 0:
            call(budget, orchestrator, now)
            each.append(now)
    return at


def gaps(at):
    return [after - before for before, after in itertools.pairwise(at)]


def test_a_stream_of_ten_seconds_is_dense_and_leaves_most_of_the_budget():
    orchestrator = Orchestrator(100)
    (at,) = streamed(CallBudget(CallLimit(100)), orchestrator, begin=7.0, seconds=10.0, streams=1)
    assert at[0] == 7.0
    assert max(gaps(at)) < 1.0
    assert len(at) < 30
    assert orchestrator.refusals == 0


def test_four_streams_of_ten_seconds_share_it():
    orchestrator = Orchestrator(100)
    for at in streamed(CallBudget(CallLimit(100)), orchestrator, begin=0.0, seconds=10.0, streams=4):
        assert max(gaps(at)) < 3.5
    assert orchestrator.refusals == 0


@given(
    st.integers(30, 300),
    st.lists(st.tuples(st.floats(0, 70), st.floats(1, 120), st.integers(1, 5)), min_size=1, max_size=6),
)
def test_streams_alone_are_refused_at_most_once_and_then_never(calls, runs):
    """The last chunk of each is sent anyway while the limit is only assumed: one refusal settles that."""
    orchestrator, budget, now = Orchestrator(calls), CallBudget(CallLimit(calls)), 0.0
    for pause, seconds, streams in runs:
        now += pause
        streamed(budget, orchestrator, begin=now, seconds=seconds, streams=streams)
        now += seconds
    assert orchestrator.refusals <= 1


@given(st.integers(30, 300), st.floats(10, 900), st.integers(1, 8))
def test_long_streams_alone_are_never_refused_and_go_on_after_each_silence(calls, seconds, streams):
    orchestrator, budget = Orchestrator(calls), CallBudget(CallLimit(calls))
    for at in streamed(budget, orchestrator, begin=0.0, seconds=seconds, streams=streams):
        assert max(gaps(at), default=0.0) < 2 * 62.0
    assert orchestrator.refusals == 0


def test_calls_that_cannot_be_combined_go_out_and_raise_the_assumed_limit():
    budget, orchestrator = CallBudget(CallLimit(100)), Orchestrator(100_000)
    for number in range(1_000):
        assert budget.must_wait(number / 100) == 0
        call(budget, orchestrator, number / 100)
    assert budget.calls >= 1_000


def test_a_budget_counts_from_nothing():
    budget = CallBudget(CallLimit(100))
    assert budget.used == 0
    budget.spend(0.0)
    assert budget.used == 1


def test_only_calls_beyond_what_is_assumed_raise_it():
    budget = CallBudget(CallLimit(100))
    for _ in range(100):
        budget.spend(0.0)
        budget.taken()
    assert budget.calls == 100
    budget.spend(0.0)
    budget.taken()
    assert budget.calls == 200


def test_a_refusal_teaches_the_limit_and_everything_waits_for_the_silence_from_then_on():
    budget, orchestrator, now = CallBudget(CallLimit(100)), Orchestrator(40), 0.0
    while call(budget, orchestrator, now):
        now += 0.1
    assert budget.calls == 50  # fewer were taken than could be true of it alone: others may have been counted
    assert 60 < budget.must_wait(now) <= 61
    assert math.isinf(budget.interval(now, 1))
    now += budget.must_wait(now)
    while call(budget, orchestrator, now):
        now += 0.1
    assert budget.calls == 40
    for _ in range(3):
        now += budget.must_wait(now)
        before = orchestrator.refusals
        while budget.must_wait(now) == 0:
            call(budget, orchestrator, now)
            now += 0.1
        assert orchestrator.refusals == before


def test_a_former_run_halves_the_limit_for_a_while_only():
    budget = CallBudget(CallLimit(100))
    budget.spend(0.0)
    budget.refused(0.0)
    assert budget.calls == 50
    assert budget.must_wait(10.0) == 51.0
    assert budget.must_wait(61.0) == 0
    assert budget.calls == 100


def test_a_refusal_that_names_the_wait_says_nothing_about_the_limit():
    budget = CallBudget(CallLimit(100))
    for now in range(10):
        budget.spend(float(now))
        budget.refused(float(now), 5.0)
    assert (budget.known, budget.calls, budget.must_wait(9.0)) == (False, 100, 0)


def test_a_used_up_limit_waits_for_the_seconds_that_were_named():
    budget = CallBudget(CallLimit(20), known=True)
    for _ in range(20):
        budget.spend(0.0)
    budget.refused(0.0, 5.0)
    assert budget.must_wait(1.0) == 4.0
    assert budget.must_wait(5.0) == 0


def test_a_configured_limit_is_believed_whatever_is_refused():
    budget = CallBudget(CallLimit(20), known=True)
    for _ in range(19):
        assert budget.must_wait(0.0) == 0
        budget.spend(0.0)
    assert budget.must_wait(0.0) == 61.0
    assert budget.must_wait(61.0) == 0
    budget.spend(61.0)
    budget.refused(61.0)
    assert budget.calls == 20


def test_where_there_is_no_limit_nothing_waits():
    budget = CallBudget(UNLIMITED, known=True)
    for _ in range(10_000):
        budget.spend(0.0)
    assert budget.interval(0.0, 50) == 0
    assert budget.must_wait(0.0) == 0


def test_a_refusal_after_half_of_what_is_assumed_is_believed_for_good():
    budget = CallBudget(CallLimit(100))
    for _ in range(51):
        budget.spend(0.0)
    budget.refused(0.0)
    assert budget.calls == 50
    assert budget.must_wait(61.0) == 0
    assert budget.calls == 50


def test_streams_share_what_is_left_evenly():
    budget = CallBudget(CallLimit(100))  # of which 85 are for streams
    for streams in (1, 2, 5):
        assert budget.interval(0.0, streams) == pytest.approx(streams * HORIZON / (85 - streams) * 61.0)
    assert budget.interval(0.0, 0) == pytest.approx(HORIZON / 85 * 61.0)


@pytest.mark.parametrize(("streams", "used", "silences"), [(1, 15, HORIZON), (5, 11, 1.0), (1, 16, math.inf)])
def test_the_last_call_for_streams_is_made_within_a_silence(streams, used, silences):
    budget = CallBudget(CallLimit(20))  # of which 17 are for streams
    for _ in range(used):
        budget.spend(0.0)
    assert budget.interval(0.0, streams) == silences * 61.0
