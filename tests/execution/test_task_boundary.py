"""What ends at a boundary, and what goes on through it."""

from __future__ import annotations

import asyncio

import pytest

from avtomatika_worker._boundaries import attempted, caught
from avtomatika_worker.errors import PermanentError
from avtomatika_worker.execution.task_boundary import TaskBoundary


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermanentError("no"), PermanentError.code),
        (ValueError("no"), "TRANSIENT_ERROR"),
        (SystemExit(3), "TRANSIENT_ERROR"),
        (GeneratorExit(), "TRANSIENT_ERROR"),
        (KeyboardInterrupt(), "TRANSIENT_ERROR"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_anything_that_a_task_raises_is_its_failure(error: BaseException, code: str) -> None:
    with TaskBoundary() as boundary:
        raise error
    assert boundary.failure.code == code


def test_a_cancellation_goes_on_through_it() -> None:
    with pytest.raises(asyncio.CancelledError), TaskBoundary():
        raise asyncio.CancelledError


def test_what_is_caught_is_the_error_itself_and_no_other_kind() -> None:
    error = SystemExit(3)
    with caught() as kept:
        raise error
    assert kept.error is error
    with pytest.raises(SystemExit), caught(Exception):
        raise error


def test_the_error_is_none_if_nothing_was_caught() -> None:
    with caught() as kept:
        pass
    assert kept.error is None


def test_a_value_that_raises_is_replaced_by_one_made_from_the_error() -> None:
    assert attempted(lambda: 1, lambda _: 2) == 1
    assert attempted(lambda: 1 // 0, lambda error: type(error).__name__) == "ZeroDivisionError"
