"""Watches every readable directory below one, for ``--reload``.

Each directory is watched by itself. Watched as a whole, a tree with one unreadable directory, or a link that leads
back, is not watched at all (observed with watchfiles 1.3: an error, or silence if asked to ignore that).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

_SUFFIXES: Final = (".py", ".pyx", ".pyd", ".env")
_TEMPORARY: Final = (".#", "flycheck_")
_IGNORED: Final = frozenset(
    {
        *("__pycache__", ".git", ".hg", ".svn", ".tox", ".nox", ".venv", ".idea", "site-packages", "node_modules"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"),
    }
)

MOST_DIRECTORIES: Final = 20_000
"""Maximum number of directories to watch, those nearest to the top first."""

_LOOK: Final = 500
"""Milliseconds after which an empty set is yielded, so that the caller can check on its process."""

_PAUSE: Final = 1.0
"""Seconds before watching is retried after a failure."""


def changes(directory: str, stop: threading.Event, say: Callable[[str], None]) -> Iterator[set[str]]:
    """Yield the Python files that have changed, and now and then an empty set, until ``stop`` is set.

    Directories come and go; any that cannot be watched is left out. ``say`` gets messages for the user.
    """
    polling = False
    while not stop.is_set():
        directories = directories_below(directory)
        if len(directories) >= MOST_DIRECTORIES:
            say(f"--reload watches {MOST_DIRECTORIES} directories below {directory}, but there are more")
        try:
            yield from _until_directories_change(directories, stop, polling=polling)
        except (OSError, RuntimeError) as error:  # raised by the system's watcher, by way of Rust
            if not polling:
                say(f"--reload gets no change notifications ({error}); it checks every second")
            polling = True
            yield set()
            stop.wait(_PAUSE)


def directories_below(top: str) -> list[str]:
    """Return a directory and every readable one below it, except those without code of the user's."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = deque([top])
    while waiting and len(found) < MOST_DIRECTORIES:
        directory = waiting.popleft()
        try:
            facts = os.stat(directory)  # noqa: PTH116 - there may be very many
            with os.scandir(directory) as entries:
                below = sorted(each.path for each in entries if each.name not in _IGNORED and each.is_dir())
        except OSError:  # it cannot be read, or has gone
            continue
        key = facts.st_dev, facts.st_ino
        if key in seen or (directory != top and os.path.isfile(os.path.join(directory, "pyvenv.cfg"))):  # noqa: PTH113, PTH118
            continue
        seen.add(key)
        found.append(directory)
        waiting.extend(below)
    return found


def _until_directories_change(directories: list[str], stop: threading.Event, *, polling: bool) -> Iterator[set[str]]:
    """Yield the changes in these directories, until one of them is gone or there is a new one."""
    from watchfiles import Change, watch

    known = set(directories)

    def is_wanted(change: Change, path: str) -> bool:
        return _is_code(path) or path in known or (change is Change.added and _is_watchable(path))

    for found in watch(
        *directories,
        watch_filter=is_wanted,
        stop_event=stop,
        rust_timeout=_LOOK,
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
        force_polling=polling,
        poll_delay_ms=1000,
    ):
        files = {path for _, path in found if _is_code(path)}
        others = {path for _, path in found} - files
        for path in others - known:  # created before it was watched
            files.update(_code_below(path))
        yield files
        if others:
            return


def _is_code(path: str) -> bool:
    name = os.path.basename(path)  # noqa: PTH119
    return name.endswith(_SUFFIXES) and not name.startswith(_TEMPORARY)


def _is_watchable(path: str) -> bool:
    return os.path.isdir(path) and os.path.basename(path) not in _IGNORED  # noqa: PTH112, PTH119


def _code_below(path: str) -> Iterator[str]:
    for directory in directories_below(path):
        try:
            yield from (each.path for each in os.scandir(directory) if _is_code(each.path))
        except OSError:
            continue
