"""Tracebacks of exceptions from user code, as text: runs of this package's own frames are folded into one line.

Text, because the exception would keep every frame and its variables alive until the log record is gone.
"""

from __future__ import annotations

import itertools
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from avtomatika_worker._boundaries import attempted

_PACKAGE: Final = Path(__file__).parent.parent  # as frames have it: links are not resolved
_OURS: Final = f"{_PACKAGE}/"
_DEMO: Final = f"{_PACKAGE}/demo_app/"  # skills, like those of any user
_STANDARD: Final = f"{sysconfig.get_path('stdlib')}/"
_INSTALLED: Final = tuple({f"{sysconfig.get_path(name)}/" for name in ("purelib", "platlib")})


class _Stack(traceback.StackSummary):
    """A stack in which a frame without a file stands for folded frames."""

    def format_frame_summary(self, frame_summary: traceback.FrameSummary, **kwargs: Any) -> str:
        if not frame_summary.filename:
            return f"  [{frame_summary.name}]\n"
        return super().format_frame_summary(frame_summary, **kwargs)


def folded_traceback(error: BaseException) -> str:
    """Return the traceback of an exception, including those of chained and grouped exceptions.

    Frames of this package that led to user code are left out, with those of an import; its other frames are replaced by
    their number. If none of the frames is the user's, all are kept, because the bug is then in the package, unless the
    user's file cannot be read as Python. Returns "" if the exception was never raised.
    """
    if error.__traceback__ is None:
        return ""
    # Memory may have run out, or the exception's own attributes may raise.
    return attempted(
        lambda: _formatted(error), lambda problem: f"(the traceback cannot be formatted: {type(problem).__name__})"
    )


def _formatted(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(error)
    parts = list(_parts(shown))
    if any(not _is_ours(frame) and not _is_standard(frame) for part in parts for frame in part.stack):
        for part in parts:
            part.stack = _folded(part.stack)
    elif isinstance(error, SyntaxError):
        shown.stack = _Stack()  # it names its line itself
    return "".join(shown.format()).rstrip("\n")


def _parts(whole: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    todo, seen = [whole], set[int]()
    while todo:
        part = todo.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            todo.extend(each for each in (part.__cause__, part.__context__, *(part.exceptions or ())) if each)


def _folded(stack: traceback.StackSummary) -> _Stack:
    """Return the stack with each run of our frames, uninterrupted by the user's, folded into one line."""
    kept = _Stack()
    for foreign, run in itertools.groupby(stack, key=lambda frame: not _is_ours(frame) and not _is_standard(frame)):
        frames = list(run)
        ours = [at for at, frame in enumerate(frames) if _is_ours(frame)]
        if foreign or not ours:
            kept.extend(frames)
            continue
        below = frames[ours[-1] + 1 :]
        if kept or len(frames) == len(stack):  # otherwise the run led to the user's code
            kept.extend((*frames[: ours[0]], _marker(len(ours)), *below))
        else:
            kept.extend(frame for frame in below if not _imports(frame))
    return kept


def _marker(count: int) -> traceback.FrameSummary:
    return traceback.FrameSummary("", 0, f"{count} frame{'s' if count > 1 else ''} of avtomatika_worker", line="")


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_OURS) and not frame.filename.startswith(_DEMO)


def _imports(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(("<frozen importlib", f"{_STANDARD}importlib/"))


def _is_standard(frame: traceback.FrameSummary) -> bool:
    name = frame.filename
    return name.startswith("<frozen ") or (name.startswith(_STANDARD) and not name.startswith(_INSTALLED))
