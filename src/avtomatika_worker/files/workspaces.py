"""Directories for the tasks' files: one for each task, made when it is first used and removed after the task.

    TASK_FILES_DIR/run-x1y2z3/           of one process; it holds the lock on run-x1y2z3.lock while it lives
    TASK_FILES_DIR/run-x1y2z3/job-1-ab/  of one task

What a crashed process left behind is what nobody holds the lock of.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Final

from avtomatika_worker.errors import InternalError, UnsafeNameError
from avtomatika_worker.files.names import check_key

_log: Final = logging.getLogger("avtomatika_worker.files")

_RUN: Final = "run-"
_LOCK: Final = ".lock"


def try_lock(file: IO[bytes]) -> bool:
    """Take the lock on an open file, if nobody has it. It is released when the file is closed, or the process dies."""
    if sys.platform == "win32":
        return False  # leftovers stay there: nothing tells them from what is in use
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def private_directory(path: Path) -> Path:
    """Make a directory that only this user can enter, if there is none, and return its resolved path.

    Raises OSError, also for one that somebody else could replace things in.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform != "win32":
        status = path.stat()
        foreign = status.st_uid not in {0, os.geteuid()}
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if foreign or shared:
            raise PermissionError(f"{path} is {'of another user' if foreign else 'writable by others'}")
    return path.resolve()


class Workspaces:
    """Makes and removes them. All of it blocks: call it in a thread."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._guard = threading.Lock()
        self._run: Path | None = None
        self._lock: IO[bytes] | None = None

    def make(self, task_id: str) -> Path:
        """Make a directory for a task, mode 0700. Raises `UnsafeNameError` for an id that cannot be a name."""
        if len(check_key(task_id, task_id)) != 1:
            raise UnsafeNameError(task_id, "an id has no slash")
        try:
            return Path(tempfile.mkdtemp(prefix=f"{task_id}-", dir=self._directory()))
        except OSError as error:
            problem = f"no directory can be made there for files: {(error.strerror or str(error)).lower()}"
            advice = "name a directory that the worker's user may write to"
            raise InternalError(f"TASK_FILES_DIR={self._base}: {problem}; {advice}") from error

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a task's directory and all in it, however it was locked up."""
        shutil.rmtree(path, onerror=_open_up)
        if path.exists():
            _log.warning("files of a task stay behind in %s", path, extra={"action": "workspace_left"})

    def clean_up(self) -> None:
        """Remove what processes that have crashed left behind."""
        try:
            locks = list(self._base.glob(f"{_RUN}*{_LOCK}"))
        except OSError:
            return
        for lock in locks:
            with contextlib.suppress(OSError), lock.open("rb") as file:
                if try_lock(file):
                    leftover = lock.with_suffix("")
                    _log.info("removing %s: its worker is gone", leftover, extra={"action": "workspace_leftover"})
                    self.remove(leftover)
                    lock.unlink()

    def close(self) -> None:
        """Remove what is empty of this process's; what a skill still works in stays for the next `clean_up`."""
        with self._guard:
            if self._run is None or self._lock is None:
                return
            with contextlib.suppress(OSError):
                self._run.rmdir()
                self._run.with_name(self._run.name + _LOCK).unlink()
            self._lock.close()
            self._run = self._lock = None

    def _directory(self) -> Path:
        with self._guard:
            if self._run is None:
                base = private_directory(self._base)
                # The lock first: a directory that has none yet would look like a leftover without an owner.
                descriptor, name = tempfile.mkstemp(prefix=_RUN, suffix=_LOCK, dir=base)
                self._lock = os.fdopen(descriptor, "wb")
                try_lock(self._lock)
                self._run = Path(name).with_suffix("")
                self._run.mkdir(mode=0o700)
            return self._run


def _open_up(func: object, path: str, _: object) -> None:
    """Give ourselves the right to remove what a skill has made read-only, and try again."""
    if not callable(func):
        return
    with contextlib.suppress(OSError):
        for directory in (Path(path).parent, Path(path)):
            if directory.is_dir() and not directory.is_symlink():
                directory.chmod(0o700)
        func(path)
