"""What shell completion offers that only the user's app knows."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator

from avtomatika_worker.cli.worker_app import UsageProblem, load_app, load_settings, load_skills


def skills_of(app: str | None) -> list[tuple[str, str]]:
    """Return the name and the description of each skill of the Worker; none if it cannot be loaded.

    The app is imported for that. Nothing it writes reaches the shell, which would take it for an answer.
    """
    with _silence():
        try:
            worker = load_app(app)
            load_skills(worker, load_settings(worker))
        except UsageProblem:
            return []
    return [(each.name, each.description or "") for each in worker.skills.contracts()]


@contextlib.contextmanager
def _silence() -> Generator[None]:
    """Redirect both outputs of this process and its children to nowhere."""
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
        for each in (*kept, nowhere):
            os.close(each)
