"""Removes directory trees with foreign content: whatever a skill left there, the removal ends and harms nothing.

Everything is done relative to directory descriptors, so that no link is ever followed, whenever it is created. What
cannot be removed stays: immutable files, mount points and everything below them, directories of another user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

_DEEPEST: Final = 16
"""The most directories open at the same time; deeper ones are moved up first."""

_PASSES: Final = 3
"""How often a directory is scanned while a runaway skill keeps adding files."""

BY_DESCRIPTOR: Final = sys.platform != "win32"


def remove_tree(directory: Path) -> OSError | None:
    """Remove a directory and all its content, whatever its permissions; return why some of it stays, or None.

    Never raises. A path that is a link, or not a directory, is left alone and reported.
    """
    try:
        if not BY_DESCRIPTOR:
            return _remove_by_path(directory)
        with opened(directory.parent) as parent:
            return remove_tree_in(parent, directory.name)
    except OSError as error:
        return error


def remove_tree_in(parent: int, name: str) -> OSError | None:
    """Remove a directory in an open one, as `remove_tree` does."""
    try:
        return _Removal(parent, name).run()
    except OSError as error:
        return error


@contextlib.contextmanager
def opened(path: Path | str, parent: int | None = None) -> Generator[int]:
    """Open a directory and yield its descriptor. Without ``parent``, links are followed. Raises OSError."""
    no_link = 0 if parent is None else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | no_link, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Removal:
    """The removal of one tree, whose root is ``name`` in the open directory ``parent``."""

    def __init__(self, parent: int, name: str) -> None:
        self._parent = parent
        self._name = name
        self._root: int | None = None
        self._moved: list[str] = []
        self._left: OSError | None = None

    def run(self) -> OSError | None:
        """Remove the tree; return the first reason why something stays."""
        self._remove_directory(self._parent, self._name, 0)
        return self._left

    def _remove_directory(self, parent: int, name: str, depth: int) -> None:
        """Remove a directory; the kernel decides which are empty, and which are mount points not to enter."""
        if self._removed(lambda: os.rmdir(name, dir_fd=parent), errno.ENOTEMPTY, errno.EEXIST):
            return
        if depth >= _DEEPEST:
            self._move_up(parent, name)
            return
        try:
            _unlock(parent, name)
            with opened(name, parent) as descriptor:
                if depth == 0:
                    self._root = descriptor
                self._empty(descriptor, depth)
        except OSError as error:
            self._stays(error)
        self._removed(lambda: os.rmdir(name, dir_fd=parent))

    def _empty(self, descriptor: int, depth: int) -> None:
        for _ in range(_PASSES):
            names = os.listdir(descriptor)
            for name in names:
                self._remove(descriptor, name, depth + 1)
            if self._left is not None or not names:
                break
        while depth == 0 and self._moved:
            self._remove_directory(descriptor, self._moved.pop(), 1)

    def _remove(self, parent: int, name: str, depth: int) -> None:
        try:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if is_directory:
            self._remove_directory(parent, name, depth)
        else:
            self._removed(lambda: os.unlink(name, dir_fd=parent))

    def _move_up(self, parent: int, name: str) -> None:
        """Move a deep directory to the root, to be removed from there."""
        moved = uuid.uuid4().hex
        try:
            _unlock(parent, name)  # moving a directory changes its ".."
            os.rename(name, moved, src_dir_fd=parent, dst_dir_fd=self._root)
        except OSError as error:
            self._stays(error)
        else:
            self._moved.append(moved)

    def _removed(self, remove: Callable[[], None], *expected: int) -> bool:
        """Call ``remove``; return False, without a report, if it fails as ``expected``."""
        try:
            remove()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in expected:
                return False
            self._stays(error)
        return True

    def _stays(self, error: OSError) -> None:
        if self._left is None or self._left.errno == errno.ENOTEMPTY:  # its content's reason is more useful
            self._left = error


def _unlock(parent: int, name: str) -> None:
    """Grant ourselves all rights in our own directory. Raises OSError for a link, or anything not ours."""
    if sys.platform == "linux":
        # O_PATH opens even an unreadable directory, and refers to this very one, whatever replaces it meanwhile.
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parent)
        try:
            if os.fstat(descriptor).st_mode & stat.S_IRWXU != stat.S_IRWXU:
                Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IRWXU)
        finally:
            os.close(descriptor)
    elif os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent, follow_symlinks=False)


def _remove_by_path(directory: Path) -> OSError | None:
    """Remove a tree on systems without directory descriptors (Windows)."""
    failures: list[OSError] = []

    def try_again(func: Callable[[str], object], path: str, info: object) -> None:  # noqa: ARG001 - as it is called
        try:
            Path(path).chmod(stat.S_IRWXU)  # read-only files cannot be removed there
            if func in {os.unlink, os.rmdir}:
                func(path)
        except OSError as error:
            failures.append(error)

    shutil.rmtree(directory, onerror=try_again)
    return failures[0] if failures else None
