"""Pace: never faster than its rate in the long run, whatever the times at which it is asked."""

from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.token_bucket import TokenBucket


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 2), min_size=1, max_size=100))
def test_no_span_has_more_than_the_rate_and_a_seconds_worth(rate, gaps):
    pace, now, at = TokenBucket(rate), 100.0, []
    for gap in gaps:
        now += gap
        at.append(now + pace.take(now))
    assert at == sorted(at)
    for first, start in enumerate(at):
        for last in range(first, len(at)):
            span = at[last] - start
            assert last - first + 1 <= span * rate + max(1.0, rate) + 1 + 1e-6


def test_what_comes_slowly_never_waits():
    pace = TokenBucket(2.0)
    assert [pace.take(float(second) / 2) for second in range(100)] == [0.0] * 100


def test_a_burst_of_a_seconds_worth_goes_at_once_and_the_rest_in_step():
    pace = TokenBucket(4.0)
    assert [pace.take(0.0) for _ in range(7)] == [0, 0, 0, 0, 0.25, 0.5, 0.75]


def test_a_clock_that_goes_back_lends_nothing():
    pace = TokenBucket(1.0)
    assert pace.take(10.0) == 0
    assert pace.take(5.0) == 1.0
    assert pace.take(10.0) <= 1.0
