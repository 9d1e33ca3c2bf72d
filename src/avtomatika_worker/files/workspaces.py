"""Directories for tasks' files: one per task, created when first used and removed after the task.

    TASK_FILES_DIR/run-x1y2z3/           of one process, which locks run-x1y2z3.lock while it lives
    TASK_FILES_DIR/run-x1y2z3/job-1-ab/  of one task

A directory whose lock is not held was left behind by a crashed process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import sys
import threading
from pathlib import Path
from typing import IO, Final

import msgspec

from avtomatika_worker.errors import InternalError, UnsafeNameError
from avtomatika_worker.files.names import check_key
from avtomatika_worker.files.ownership import OpenDirectory, is_ours, open_private_directory, open_safe_directory
from avtomatika_worker.files.removal import remove_tree, remove_tree_in

_log: Final = logging.getLogger("avtomatika_worker.files")

_RUN: Final = "run-"
_LOCK: Final = ".lock"


def try_lock(file: IO[bytes]) -> bool:
    """Lock an open file if it is not locked. The lock is released when the file is closed or the process dies."""
    if sys.platform == "win32":
        return False  # leftovers stay there: they cannot be distinguished from directories in use
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class _Run(msgspec.Struct, frozen=True):
    """The directory of this process's tasks, its parent, and its lock."""

    base: OpenDirectory
    directory: OpenDirectory
    lock: IO[bytes]

    @property
    def name(self) -> str:
        """Its name in the base directory."""
        return self.directory.path.name

    def close(self) -> None:
        """Remove the directory if it is empty, and release the rest."""
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                self.base.rmdir(self.name)
            self.base.unlink(self.name + _LOCK)
        self.lock.close()
        self.directory.close()
        self.base.close()


class Workspaces:
    """Makes and removes the directories, relative to directory descriptors. Blocks: call it in a thread."""

    def __init__(self, base: Path, otherwise: Path | None = None) -> None:
        """``otherwise`` replaces ``base`` if that is another user's, as a well-known default may be."""
        self._base = base
        self._otherwise = otherwise
        self._guard = threading.Lock()
        self._run: _Run | None = None
        self._runs: list[_Run] = []

    def make(self, task_id: str) -> Path:
        """Make a directory for a task, mode 0700. Raises `UnsafeNameError` for an id that cannot be a name."""
        if len(check_key(task_id, task_id)) != 1:
            raise UnsafeNameError(task_id, "an id must not contain a slash")
        try:
            return self._made(f"{task_id}-{secrets.token_hex(4)}")
        except OSError as error:
            problem = f"cannot create a directory for files there: {(error.strerror or str(error)).lower()}"
            advice = "choose a directory that the worker's user may write to"
            raise InternalError(f"TASK_FILES_DIR={self._base}: {problem}; {advice}") from error

    def remove(self, path: Path) -> None:
        """Remove a task's directory and its content, whatever its permissions. Never raises: what stays is logged."""
        with self._guard:
            run = next((each for each in self._runs if each.directory.path == path.parent), None)
            directory = run.directory.again() if run is not None else None
        if directory is None:
            _say_what_stays(path, remove_tree(path))
            return
        _say_what_stays(path, _removed(directory, path.name))
        directory.close()

    def clean_up(self) -> None:
        """Remove the leftovers of crashed processes. Never raises: what cannot be removed stays."""
        for base in (self._base, self._otherwise):
            if base is not None:
                with contextlib.suppress(OSError):  # it does not exist yet, or is not ours: `make` reports which
                    _clean_up(base)

    def close(self) -> None:
        """Remove this process's empty directories; one still used by a skill stays for the next `clean_up`."""
        with self._guard:
            for run in self._runs:
                run.close()
            self._run = None
            self._runs.clear()

    def _made(self, name: str) -> Path:
        try:
            return self._directory().make(name)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            with self._guard:
                if self._run is None:
                    raise  # there is no place left
                gone, self._run = self._run, None  # its lock is kept: tasks may still be working there
            path = self._directory().make(name)
            _log.warning(
                "%s can no longer be used (%s): files are now in %s",
                gone.directory.path,
                (error.strerror or str(error)).lower(),
                path.parent,
                extra={"action": "workspaces_replaced"},
            )
            return path

    def _directory(self) -> OpenDirectory:
        with self._guard:
            if self._run is None:
                self._run = _new_run(self._usable_base())
                self._runs.append(self._run)
            return self._run.directory

    def _usable_base(self) -> OpenDirectory:
        try:
            return open_private_directory(self._base)
        except PermissionError as error:
            if self._otherwise is None:
                raise
            base = open_private_directory(self._otherwise)
            _log.warning(
                "%s; files of tasks are in %s: set TASK_FILES_DIR to choose a place",
                error,
                base.path,
                extra={"action": "task_files_elsewhere"},
            )
            return base


def _new_run(base: OpenDirectory) -> _Run:
    """Make a run's directory and lock it. Raises OSError, after closing ``base``."""
    name = f"{_RUN}{secrets.token_hex(6)}"
    with contextlib.ExitStack() as undo:
        undo.callback(base.close)
        # The lock first: a directory without one would look like a leftover.
        lock = base.open(name + _LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        undo.callback(lock.close)
        try_lock(lock)
        base.make(name)
        run = _Run(base, base.enter(name), lock)
        undo.pop_all()
        return run


def _clean_up(path: Path) -> None:
    base = open_safe_directory(path)
    try:
        for name in base.names():
            if name.startswith(_RUN) and name.endswith(_LOCK):
                # Without O_NONBLOCK, opening a FIFO would block.
                with contextlib.suppress(OSError), base.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)) as lock:
                    status = os.fstat(lock.fileno())
                    if stat.S_ISREG(status.st_mode) and is_ours(status) and try_lock(lock):
                        _remove_leftover(base, name)
    finally:
        base.close()


def _remove_leftover(base: OpenDirectory, lock: str) -> None:
    name = lock.removesuffix(_LOCK)
    with contextlib.suppress(FileNotFoundError):
        if not is_ours(base.status(name)):
            return  # others may put things into a shared directory
        _log.info("removing %s: its worker is gone", base.path / name, extra={"action": "workspace_leftover"})
        problem = _removed(base, name)
        _say_what_stays(base.path / name, problem)
        base.status(name)
        return  # the next start tries again
    base.unlink(lock)


def _removed(directory: OpenDirectory, name: str) -> OSError | None:
    if directory.descriptor is None:
        return remove_tree(directory.path / name)
    return remove_tree_in(directory.descriptor, name)


def _say_what_stays(path: Path, problem: OSError | None) -> None:
    if problem is not None:
        _log.warning(
            "a task's files are left behind in %s: %s", path, problem.strerror, extra={"action": "workspace_left"}
        )
