"""Where errors of any type end: two ways, so that each place which needs one says only why.

What others wrote (skills, checkers, the values that they return, log handlers) may raise anything, and so may the
system in a restricted container. Where the types are known, those are caught, and nothing here is used.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


def attempted(work: Callable[[], _T], otherwise: Callable[[Exception], _T]) -> _T:
    """Return what ``work`` returns or, when it raises anything, what ``otherwise`` makes of that."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - what others wrote may raise anything
        return otherwise(error)


@dataclass(slots=True)
class Caught:
    """What ended a ``with`` block of `caught`; None when nothing did."""

    error: BaseException | None = None


@contextmanager
def caught(kind: type[BaseException] = BaseException) -> Generator[Caught]:
    """Keep what is raised inside, for who is to raise it elsewhere: in another thread or task, or later."""
    kept = Caught()
    try:
        yield kept
    except BaseException as error:  # nothing may be lost on the way to there
        if not isinstance(error, kind):
            raise
        kept.error = error
