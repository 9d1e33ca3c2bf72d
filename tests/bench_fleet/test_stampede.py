"""The simulation behind docs/scale.md."""

import pytest

from avtomatika_worker.policy.backoff import BackoffPolicy
from bench.stampede import Costs, simulate

COSTS = Costs(coming_back=0.01, idle=0.0002)
WORKERS = 2_000


@pytest.mark.parametrize("jitter", [True, False])
@pytest.mark.parametrize("outage", [0.5, 5.0, 100.0])
def test_every_worker_comes_back_once(outage, jitter):
    course = simulate(WORKERS, outage, COSTS, jitter=jitter)
    assert course.back.total() == WORKERS
    assert course.quiet > outage
    assert min(course.back) >= int(outage)


def test_without_jitter_all_try_in_the_same_second_and_with_it_they_do_not():
    without, with_ = (simulate(WORKERS, 100.0, COSTS, jitter=jitter) for jitter in (False, True))
    assert without.peak == WORKERS
    assert with_.peak < WORKERS / 10


def test_calls_that_wait_for_longer_than_workers_do_are_made_again():
    slow = Costs(coming_back=0.1, idle=0.0)
    course = simulate(WORKERS, 5.0, slow, jitter=False, orchestrators=2)
    assert course.given_up > 0
    assert course.tries.total() > WORKERS
    assert course.quiet > WORKERS * slow.coming_back / 2


def test_no_worker_is_later_than_the_longest_delay_if_there_is_room():
    policy = BackoffPolicy(initial=1.0, maximum=10.0)
    course = simulate(WORKERS, 100.0, Costs(coming_back=0.0001, idle=0.0), policy=policy)
    assert course.quiet <= 100.0 + policy.maximum + 1.0


def test_idle_workers_take_half_of_the_orchestrators_time_at_most():
    assert COSTS.orchestrators_for(100_000) == 40
    assert COSTS.orchestrators_for(1) == 2
