"""When a process that ended by itself is started again."""

from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.restarts import RESTARTS, STABLE_AFTER, Restarts

JITTER = st.floats(0, 1, exclude_max=True)


@given(st.lists(st.tuples(st.floats(0, 1000), JITTER), max_size=50))
def test_delays_are_below_a_ceiling_that_grows_until_one_ran_for_long(ends):
    restarts, in_a_row = Restarts(), 0
    for ran_for, jitter in ends:
        in_a_row = 1 if ran_for >= STABLE_AFTER else in_a_row + 1
        delay = restarts.ended(ran_for, jitter)
        assert restarts.in_a_row == in_a_row
        assert 0 <= delay <= min(RESTARTS.maximum, RESTARTS.initial * 2 ** (in_a_row - 1))


@given(st.integers(0, 50))
def test_forgetting_starts_over(times):
    restarts = Restarts()
    for _ in range(times):
        restarts.ended(0.0, 0.5)
    restarts.forget()
    assert restarts.ended(0.0, 0.5) == RESTARTS.initial / 2


def test_a_process_that_ran_just_long_enough_begins_again():
    restarts = Restarts()
    for _ in range(3):
        restarts.ended(0.0, 0.5)
    restarts.ended(STABLE_AFTER, 0.5)
    assert restarts.in_a_row == 1
