"""How long a task still takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.estimate import seconds_left

SECONDS = st.floats(0, 1e6)


@given(SECONDS, st.floats(0, 1), st.none() | st.floats(0, 1e6), st.none() | SECONDS)
def test_it_is_never_negative(elapsed, progress, reported_at, expected):
    left = seconds_left(elapsed, progress=progress, reported_at=reported_at, expected=expected)
    assert left is None or left >= 0


@given(st.floats(0.01, 0.99), st.floats(1, 1e5))
def test_at_a_steady_pace_it_is_the_rest(progress, total):
    at = total * progress
    left = seconds_left(at, progress=progress, reported_at=at, expected=None)
    assert left == pytest.approx(total - at)


@pytest.mark.parametrize(
    ("elapsed", "progress", "reported_at", "expected", "left"),
    [
        (10.0, 0.0, None, None, None),
        (10.0, 0.0, 3.0, None, None),
        (10.0, 0.0, None, 60.0, 50.0),
        (10.0, 0.5, 0.0, 60.0, 50.0),  # progress at once shows no pace
        (90.0, 0.0, None, 60.0, 0.0),
        (10.0, 0.5, 10.0, 99.0, 10.0),
        (15.0, 0.5, 10.0, None, 5.0),  # the time since the last report counts
        (50.0, 0.5, 10.0, None, 0.0),
        (50.0, 1.0, 10.0, None, 0.0),
        (10.0, 1.0, None, 60.0, 0.0),
        (10.0, 1.0, 20.0, None, 0.0),  # whatever the clocks say
    ],
)
def test_progress_counts_before_what_is_expected(elapsed, progress, reported_at, expected, left):
    assert seconds_left(elapsed, progress=progress, reported_at=reported_at, expected=expected) == left
