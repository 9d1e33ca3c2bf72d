"""Directories for the tasks' files: one for each task, made when it is first used and removed after the task.

    TASK_FILES_DIR/run-x1y2z3/           of one process; it holds the lock on run-x1y2z3.lock while it lives
    TASK_FILES_DIR/run-x1y2z3/job-1-ab/  of one task

What a crashed process left behind is what nobody holds the lock of.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Final

from avtomatika_worker.errors import InternalError, UnsafeNameError
from avtomatika_worker.files.names import check_key
from avtomatika_worker.files.removal import remove_tree

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
    return safe_directory(path)


def safe_directory(path: Path) -> Path:
    """Return a directory's resolved path. Raises OSError as `private_directory`, and where there is none."""
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
        self._runs: dict[Path, IO[bytes]] = {}

    def make(self, task_id: str) -> Path:
        """Make a directory for a task, mode 0700. Raises `UnsafeNameError` for an id that cannot be a name."""
        if len(check_key(task_id, task_id)) != 1:
            raise UnsafeNameError(task_id, "an id has no slash")
        try:
            return self._made(task_id)
        except OSError as error:
            problem = f"no directory can be made there for files: {(error.strerror or str(error)).lower()}"
            advice = "name a directory that the worker's user may write to"
            raise InternalError(f"TASK_FILES_DIR={self._base}: {problem}; {advice}") from error

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a task's directory and all in it, however it was locked up. Raises nothing: what stays is logged."""
        problem = remove_tree(path)
        if problem is not None:
            _log.warning(
                "files of a task stay behind in %s: %s", path, problem.strerror, extra={"action": "workspace_left"}
            )

    def clean_up(self) -> None:
        """Remove what processes that have crashed left behind. Raises nothing: what cannot be removed stays."""
        try:
            base = safe_directory(self._base)
            locks = sorted(base.glob(f"{_RUN}*{_LOCK}"))
        except OSError:
            return  # there is none yet, or it is not ours: `make` says which
        for lock in locks:
            with contextlib.suppress(OSError), _opened_lock(lock) as file:
                if try_lock(file):
                    self._remove_leftover(lock)

    def close(self) -> None:
        """Remove what is empty of this process's; what a skill still works in stays for the next `clean_up`."""
        with self._guard:
            for run, lock in self._runs.items():
                with contextlib.suppress(OSError):
                    with contextlib.suppress(FileNotFoundError):
                        run.rmdir()
                    _lock_of(run).unlink()
                lock.close()
            self._run = None
            self._runs.clear()

    def _remove_leftover(self, lock: Path) -> None:
        leftover = lock.with_suffix("")
        if leftover.is_symlink() or leftover.exists():
            _log.info("removing %s: its worker is gone", leftover, extra={"action": "workspace_leftover"})
            self.remove(leftover)
        if not (leftover.is_symlink() or leftover.exists()):  # else another start tries again
            lock.unlink()

    def _made(self, task_id: str) -> Path:
        try:
            return Path(tempfile.mkdtemp(prefix=f"{task_id}-", dir=self._directory()))
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            with self._guard:
                if self._run is None:
                    raise  # there is no place for any
                gone, self._run = self._run, None  # its lock is kept: tasks may still be at work there
            path = Path(tempfile.mkdtemp(prefix=f"{task_id}-", dir=self._directory()))
            _log.warning(
                "%s cannot be used any more (%s): files are now in %s",
                gone,
                (error.strerror or str(error)).lower(),
                path.parent,
                extra={"action": "workspaces_replaced"},
            )
            return path

    def _directory(self) -> Path:
        with self._guard:
            if self._run is None:
                base = private_directory(self._base)
                # The lock first: a directory that has none yet would look like a leftover without an owner.
                descriptor, name = tempfile.mkstemp(prefix=_RUN, suffix=_LOCK, dir=base)
                lock = os.fdopen(descriptor, "wb")
                try_lock(lock)
                run = Path(name).with_suffix("")
                self._runs[run] = lock
                run.mkdir(mode=0o700)
                self._run = run
            return self._run


def _lock_of(run: Path) -> Path:
    return run.with_name(run.name + _LOCK)


def _opened_lock(path: Path) -> IO[bytes]:
    """Open the lock of a leftover. Raises OSError for what is no file of ours: others may have put it there."""
    # Without O_NONBLOCK, a FIFO would be waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or (sys.platform != "win32" and status.st_uid != os.geteuid()):
        file.close()
        raise PermissionError(f"{path} is not a file of this user")
    return file
