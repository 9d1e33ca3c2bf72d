"""Detects whether the file with a worker was imported twice and made two `Worker` objects.

``python -m app.main`` runs app/main.py as ``__main__``; a module of skills that says ``from app.main import worker``
makes Python run it once more, as ``app.main``, and registers its skills with that second worker, which never runs.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from typing import Any

import msgspec


class Twin(msgspec.Struct, frozen=True):
    """Another object of the same file. ``module`` is that in which the first one is, ``other`` that of this one."""

    file: str
    module: str
    other: str
    attribute: str
    value: Any

    def explain(self, missing: str) -> str:
        """Say what happened, what ``missing`` the worker that runs has not, and what to do."""
        as_program = " (it was started as a program)" if self.module == "__main__" else ""
        return (
            f"{self.file} was imported twice, as {self.module}{as_program} and as {self.other}, and made two Workers: "
            f"the one of {self.module}, which runs, {missing}. "
            f"Start `worker run --app {self.other}:{self.attribute}`, or move the Worker into a module of its own that "
            f"all others import"
        )


def find_twin(worker: object) -> Twin | None:
    """Return another object of the worker's class that the same file made under another name."""
    by_file: dict[str, dict[int, tuple[str, dict[str, Any]]]] = defaultdict(dict)
    for name, module in list(sys.modules.items()):
        members: dict[str, Any] = getattr(module, "__dict__", {})
        file = members.get("__file__")
        if isinstance(file, str):
            by_file[os.path.abspath(file)].setdefault(id(module), (name, members))  # noqa: PTH100 - many, of no Path
    for file, modules in by_file.items():
        if len(modules) == 1:
            continue
        homes = [name for name, members in modules.values() if any(each is worker for each in members.values())]
        for name, members in modules.values():
            for attribute, value in members.items():
                if type(value) is type(worker) and homes and name not in homes:
                    return Twin(file, homes[0], name, attribute, value)
    return None
