"""Pauses where polls come back empty at once: none while tasks flow, and never thousands of polls a second."""

from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.empty_polls import FREE, LONGEST_PAUSE, EmptyPolls

WISH = 30.0


@given(st.lists(st.floats(0.5, 60), max_size=50))
def test_polls_that_were_held_are_never_paced(held):
    polls = EmptyPolls()
    assert [polls.came_empty(after, WISH) for after in held] == [0.0] * len(held)


@given(st.lists(st.integers(0, FREE), max_size=50))
def test_nothing_is_paced_while_tasks_flow(empty_between_tasks):
    polls = EmptyPolls()
    for empty in empty_between_tasks:
        assert [polls.came_empty(0.0, WISH) for _ in range(empty)] == [0.0] * empty
        polls.got_task()


def test_empty_answers_at_once_are_few_in_the_long_run():
    polls = EmptyPolls()
    now, sent = 0.0, 0
    while now < 60:
        sent += 1
        now += polls.came_empty(0.0, WISH)
    assert sent < 60 / LONGEST_PAUSE + 20


@given(st.integers(1, 2_000))
def test_pauses_only_grow_up_to_the_longest_and_a_task_ends_them(count):
    polls = EmptyPolls()
    pauses = [polls.came_empty(0.0, WISH) for _ in range(count)]
    assert pauses == sorted(pauses)
    assert pauses[-1] <= LONGEST_PAUSE
    polls.got_task()
    assert polls.came_empty(0.0, WISH) == 0.0


def test_a_short_wish_is_held_after_half_of_it():
    polls = EmptyPolls()
    assert [polls.came_empty(0.06, 0.1) for _ in range(50)] == [0.0] * 50


def test_less_than_half_of_a_short_wish_is_not_held():
    polls = EmptyPolls()
    assert [polls.came_empty(0.04, 0.1) for _ in range(6)] == [0.0] * 5 + [0.02]


def test_pauses_begin_with_the_sixth_empty_answer_and_double_up_to_a_second():
    polls = EmptyPolls()
    pauses = [polls.came_empty(0.0, 30.0) for _ in range(20)]
    assert pauses == [0.0] * 5 + [0.02, 0.04, 0.08, 0.16, 0.32, 0.64] + [1.0] * 9
    assert polls.came_empty(0.5, 30.0) == 0.0, "it was held"
    assert [polls.came_empty(0.49, 30.0) for _ in range(6)] == [0.0] * 5 + [0.02]
    polls.got_task()
    assert polls.came_empty(0.0, 30.0) == 0.0
