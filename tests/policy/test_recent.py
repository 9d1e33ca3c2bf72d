"""What is remembered for a short time: no longer, and no more of it than the bound."""

from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.recent import Recent


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 3)), max_size=100))
def test_it_is_what_a_list_of_the_newest_would_be(steps):
    recent, now, model = Recent(5.0, 10), 100.0, {}
    for key, gap in steps:
        now += gap
        model.pop(key, None)
        model[key] = now + 5.0
        recent.remember([key], now)
        model = dict(list(model.items())[-10:])
        assert len(recent) <= 10
    for key in range(21):
        assert recent.knows(key, now) == recent.knows(key, now) == (model.get(key, 0.0) > now)
        assert recent.take([key], now) == (model.get(key, 0.0) > now)
        assert not recent.knows(key, now)
        assert not recent.take([key], now)


def test_any_number_costs_no_more_than_the_bound():
    recent = Recent(5.0, 100)
    recent.remember(range(1_000_000), 1.0)
    assert len(recent) == 100
    assert recent.take([999_999], 2.0)
    assert not recent.take([0], 2.0)


def test_a_key_is_forgotten_at_the_very_end_of_its_time():
    recent = Recent(5.0, 10)
    recent.remember(["a", "b"], 0.0)
    assert not recent.take(["a"], 5.0)
    recent.remember([], 5.0)
    assert len(recent) == 0


def test_an_unknown_key_was_not_remembered_even_when_the_clock_starts():
    assert not Recent(5.0, 10).take(["a"], 0.0)
