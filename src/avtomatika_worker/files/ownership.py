"""Whose directories are: what is another user's is neither written to nor cleaned up."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Final

_MOST_LINKS: Final = 40
"""As many as the kernel follows."""

_UNMAPPED: Final = 65534
"""The owner of what belongs to nobody in a user namespace, such as a rootless container: there, the machine's root."""


def private_directory(path: Path) -> Path:
    """Make a directory that only this user can enter, if there is none, and return its resolved path.

    Raises OSError, also for one that somebody else could replace things in, or that another user's link leads to.
    """
    if os.path.lexists(path):
        return safe_directory(path)
    _check_way(path.absolute().parent, must_exist=False)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return safe_directory(path)


def safe_directory(path: Path) -> Path:
    """Return a directory's resolved path. Raises OSError as `private_directory`, and where there is none.

    The directory itself is checked by its descriptor, so that nothing can take its place between check and use.
    """
    if sys.platform == "win32":
        path.stat()
        return path.resolve()
    _check_way(path.absolute())
    real = path.resolve()
    descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    foreign = status.st_uid not in {0, os.geteuid()}
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    if foreign or shared:
        raise PermissionError(f"{path} is {'of another user' if foreign else 'writable by others'}")
    return real


def is_ours(path: Path) -> bool:
    """Whether this user owns what is at ``path``; a link is looked at itself."""
    return sys.platform == "win32" or path.lstat().st_uid == os.geteuid()


def _check_way(path: Path, *, must_exist: bool = True) -> None:
    """Raise PermissionError where a directory or a link on the way is another user's: it could lead anywhere."""
    if sys.platform == "win32":
        return
    todo, links = [path], 0
    while todo:
        each = todo.pop()
        for above in (*reversed(each.parents), each):
            try:
                status = above.lstat()
            except FileNotFoundError:
                if must_exist:
                    raise
                break
            if not _is_trusted(status.st_uid):
                what = "a link" if stat.S_ISLNK(status.st_mode) else "a directory"
                raise PermissionError(f"{path} is of another user: {above} is {what} of theirs")
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise PermissionError(f"{path} cannot be followed: too many links")
                todo.append(above.parent / above.readlink())


def _is_trusted(owner: int) -> bool:
    return owner in {0, os.geteuid()} or (owner == _UNMAPPED and _in_namespace())


def _in_namespace() -> bool:
    try:
        return Path("/proc/self/uid_map").read_text("ascii").split() != ["0", "0", "4294967295"]
    except OSError:
        return False
