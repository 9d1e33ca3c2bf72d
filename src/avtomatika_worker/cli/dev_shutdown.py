"""What ``worker dev`` says on Ctrl+C: which tasks it waits for, how long, and what another Ctrl+C does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from avtomatika_worker.cli.dev_log import short_id
from avtomatika_worker.cli.terminal import echo
from avtomatika_worker.devserver import JobRecord, JobState

_SHOWN: Final = 3
"""The most running tasks that are named."""


def say_what_is_awaited(jobs: Iterable[JobRecord], worker_id: str, seconds: float, times: int) -> None:
    """Write which tasks of a worker a shutdown waits for; ``times`` counts the requests. Nothing if it waits for none.

    ``seconds`` is how long it waits at most.
    """
    running = [each for each in jobs if each.state is JobState.RUNNING and each.worker_id == worker_id]
    if text := waits_for(running, seconds, times):
        echo(text, err=True)


def waits_for(running: list[JobRecord], seconds: float, times: int) -> str:
    """Return what a shutdown waits for, and what another Ctrl+C does; empty if nothing more can be said."""
    if not running:
        return ""
    shown = ", ".join(f"{short_id(job.job_id)} {job.skill}" for job in running[:_SHOWN])
    more = f" and {len(running) - _SHOWN} more" if len(running) > _SHOWN else ""
    what = f"{len(running)} running {'task' if len(running) == 1 else 'tasks'}: {shown}{more}"
    match times:
        case 1:
            return f"\n  Waiting at most {seconds:g} s for {what}. Ctrl+C again cancels.\n"
        case 2:
            return f"\n  Cancelling {what}. Ctrl+C again ends the program at once.\n"
        case _:
            return ""
