"""A rate: a second's worth at once, then one after another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.token_bucket import TokenBucket


def test_a_seconds_worth_goes_at_once_and_the_rest_in_turn():
    bucket = TokenBucket(4)
    assert [bucket.take(10.0) for _ in range(7)] == [0, 0, 0, 0, 0.25, 0.5, 0.75]


def test_a_slow_rate_still_holds_one():
    bucket = TokenBucket(0.5)
    assert [bucket.take(0.0) for _ in range(3)] == [0, 2, 4]


def test_what_was_not_taken_is_kept_for_a_second_only():
    bucket = TokenBucket(2)
    assert bucket.take(0.0) == 0
    assert [bucket.take(100.0) for _ in range(3)] == [0, 0, 0.5]


def test_time_that_passes_fills_it():
    bucket = TokenBucket(2)
    for _ in range(2):
        bucket.take(0.0)
    assert bucket.take(0.25) == pytest.approx(0.25)
    assert bucket.take(1.0) == 0


def test_a_clock_that_goes_back_takes_nothing_away():
    bucket = TokenBucket(2)
    bucket.take(10.0)
    assert bucket.take(0.0) == 0
    assert bucket.take(0.0) == 0.5


@given(st.floats(0.1, 50), st.lists(st.floats(0, 2), min_size=1, max_size=40))
def test_no_window_has_more_than_a_seconds_worth_beyond_the_rate(rate, pauses):
    bucket, now, starts = TokenBucket(rate), 0.0, []
    for pause in pauses:
        now += pause
        starts.append(now + bucket.take(now))
    most = max(1.0, rate)
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            taken = last - first + 1
            assert taken <= most + rate * (starts[last] - starts[first]) + 1e-6
