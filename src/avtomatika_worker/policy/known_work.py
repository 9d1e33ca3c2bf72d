"""What to do with a task whose work is known here: run it again, or let what there is answer it.

Orchestrators hand a task out again when it takes longer than their timeout, and when an attempt has failed (RXON.md,
Behaviour 12). Nothing in the task says which of the two it is; what became of the work here does.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

CLOCK_MARGIN: Final = 2.0
"""Seconds by which a hand-out's time may differ from this worker's idea of the orchestrator's clock.

That clock is read from the ``Date`` of answers, which has whole seconds, and some releases send whole seconds too.
"""


class Stage(enum.StrEnum):
    """How far a piece of work has come here."""

    RUNNING = "running"
    STOPPING = "stopping"
    """It was cancelled, and has not ended yet: another attempt waits for that."""
    ENDED = "ended"
    """Its result is on its way."""
    STALE = "stale"
    """Its result was not wanted under any id that is known, and is kept."""


class Verdict(enum.StrEnum):
    """What to do with the hand-out."""

    RUN = "run"
    ADOPT = "adopt"
    """The running execution answers it."""
    DELIVER = "deliver"
    """The result that there is answers it."""


class Known(msgspec.Struct, frozen=True):
    """What is known of the same work.

    ``final``: its result is one after which orchestrators do not try again. ``answered_at`` is when they said that a
    `Stage.STALE` result is, in Unix seconds of theirs.
    """

    stage: Stage
    final: bool = True
    answered_at: float = 0.0


def judge(known: Known | None, *, made: float | None, has_step: bool) -> Verdict:
    """Return what to do with a hand-out that was ``made`` at a time of the orchestrator's (None: it does not say).

    ``has_step``: it says which step of its job it is, so that a later one cannot be taken for it. Otherwise a job that
    goes through the same skill with the same params twice differs from a retry by time: the retry was made before the
    orchestrator called the result stale, as only a retry makes it that.
    """
    if known is None or known.stage is Stage.STOPPING:
        return Verdict.RUN
    if known.stage is Stage.RUNNING:
        return Verdict.ADOPT
    if not known.final:
        return Verdict.RUN
    if known.stage is Stage.ENDED or has_step or made is None or made <= known.answered_at + CLOCK_MARGIN:
        return Verdict.DELIVER
    return Verdict.RUN
