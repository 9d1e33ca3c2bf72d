"""The boundaries where errors of any type end. Each use states its reason.

Users' code (skills, checkers, the values that they return, log handlers) may raise anything, and so may the system in a
restricted container. Where the types are known, catch those instead of using this module.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


def attempted(work: Callable[[], _T], otherwise: Callable[[Exception], _T]) -> _T:
    """Return the result of ``work``, or of ``otherwise(error)`` if it raises."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - users' code may raise anything
        return otherwise(error)


@dataclass(slots=True)
class Caught:
    """The error that ended a ``with`` block of `caught`, or None."""

    error: BaseException | None = None


@contextmanager
def caught(kind: type[BaseException] = BaseException) -> Generator[Caught]:
    """Catch what is raised inside, so that it can be raised in another thread or task, or later."""
    kept = Caught()
    try:
        yield kept
    except BaseException as error:  # whatever it is, it must not get lost on its way
        if not isinstance(error, kind):
            raise
        kept.error = error
