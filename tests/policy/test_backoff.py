"""How long a failed call waits, to the second."""

import pytest

from avtomatika_worker.policy.adaptive_polls import AdaptivePollCount
from avtomatika_worker.policy.backoff import LONGEST_WAIT, Backoff, BackoffPolicy


@pytest.mark.parametrize(
    ("attempt", "ceiling"), [(0, 0.5), (1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 10), (62, 10), (10_000, 10)]
)
def test_a_ceiling_doubles_up_to_the_maximum(attempt, ceiling):
    policy = BackoffPolicy(initial=0.5, maximum=10)
    assert policy.ceiling(attempt) == ceiling
    assert policy.delay(attempt, 0.5) == ceiling / 2


def test_a_small_first_delay_reaches_any_maximum_and_never_overflows():
    assert BackoffPolicy(initial=1e-9, maximum=1e6).ceiling(10_000) == 1e6
    assert BackoffPolicy(initial=1.0, maximum=float("inf")).ceiling(10_000) == 2.0**60


def test_what_was_asked_for_is_spread_by_a_quarter_of_the_ceiling():
    policy = BackoffPolicy(initial=4, maximum=100, rate_limit_floor=61)
    assert policy.delay(1, 0.5, retry_after=10) == 10.5
    assert policy.delay(2, 0.5, retry_after=0) == 1
    assert policy.delay(1, 0.5, retry_after=LONGEST_WAIT) == LONGEST_WAIT + 0.5
    assert policy.delay(1, 0.5, retry_after=LONGEST_WAIT + 0.1) == 2
    assert policy.delay(1, 0.5, rate_limited=True) == 61.5
    assert policy.delay(1, 0.5, retry_after=LONGEST_WAIT + 1, rate_limited=True) == 61.5
    assert policy.delay(1, 0.5, retry_after=3, rate_limited=True) == 3.5


def test_failures_are_counted_until_a_success():
    backoff = Backoff(BackoffPolicy(initial=1, maximum=60, rate_limit_floor=61))
    assert [backoff.failed(0.5) for _ in range(3)] == [0.5, 1, 2]
    assert backoff.failed(0.5, retry_after=5) == 6
    assert backoff.failed(0.5, rate_limited=True) == 63
    assert backoff.attempts == 5
    backoff.succeeded()
    assert (backoff.attempts, backoff.failed(0.5)) == (0, 0.5)


def test_polls_double_with_tasks_and_go_one_by_one_without():
    polls = AdaptivePollCount(5)
    assert polls.target == 1
    targets = []
    for _ in range(4):
        polls.got_task()
        targets.append(polls.target)
    for _ in range(5):
        polls.came_empty()
        targets.append(polls.target)
    assert targets == [2, 4, 5, 5, 4, 3, 2, 1, 1]
    polls.got_task()
    polls.got_task()
    polls.failed()
    assert polls.target == 1


@pytest.mark.parametrize("most", [0, -1, 1])
def test_there_is_always_one_poll(most):
    polls = AdaptivePollCount(most)
    polls.got_task()
    assert polls.target == 1
