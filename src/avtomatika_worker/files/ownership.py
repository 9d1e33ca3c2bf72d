"""Checks the ownership of directories: another user's are neither written to nor cleaned up."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import IO, Final

import msgspec

_DIRECTORY: Final = (
    os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
)
_PRIVATE: Final = 0o700
_MOST_LINKS: Final = 40
"""The most links followed, the same as the kernel's limit."""

_UNMAPPED: Final = 65534
"""The owner of unmapped files in a user namespace, such as a rootless container: there, the machine's root."""


def private_directory(path: Path) -> Path:
    """Make a directory that only this user can enter, if it does not exist, and return its resolved path.

    Raises OSError, also for a directory in which another user could replace things, or that another user's link leads
    to.
    """
    directory = open_private_directory(path)
    directory.close()
    return directory.path


def make_directories(path: Path) -> None:
    """Make a directory and those above it that are missing, for this user only. Raises OSError.

    A skill may have set a umask that takes this user's own rights, and means its own files by that.
    """
    missing = [each for each in (path, *path.parents) if not os.path.lexists(each)]
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):  # somebody else was first
            each.mkdir(mode=_PRIVATE)
            if sys.platform != "win32" and stat.S_IMODE(each.lstat().st_mode) != _PRIVATE:
                each.chmod(_PRIVATE)


def check_private(path: Path) -> None:
    """Raise what `private_directory` would raise, without making anything."""
    if os.path.lexists(path):
        safe_directory(path)
    else:
        _check_way(path.absolute().parent, must_exist=False)


def safe_directory(path: Path) -> Path:
    """Return the resolved path of an existing directory. Raises OSError as `private_directory` does."""
    directory = open_safe_directory(path)
    directory.close()
    return directory.path


class OpenDirectory(msgspec.Struct, frozen=True):
    """A directory used through its descriptor, which no renaming along its path can change.

    ``descriptor`` is None on Windows, which has none; there the path is used.
    """

    path: Path
    descriptor: int | None

    def make(self, name: str) -> Path:
        """Make a directory for this user only and return its path. Raises OSError, and PermissionError if that path,
        which skills receive, leads elsewhere.
        """
        os.mkdir(self._named(name), _PRIVATE, dir_fd=self.descriptor)
        path = self.path / name
        if (
            self.descriptor is not None and stat.S_IMODE(self.status(name).st_mode) != _PRIVATE
        ):  # as in `make_directories`
            os.chmod(self._named(name), _PRIVATE, dir_fd=self.descriptor)
        if self.descriptor is not None and not os.path.samestat(path.lstat(), self.status(name)):
            raise PermissionError(f"{path} is not the directory that was made: one along the way was replaced")
        return path

    def enter(self, name: str) -> OpenDirectory:
        """Open a directory in it without following a link. Raises OSError."""
        if self.descriptor is None:
            return OpenDirectory(self.path / name, None)
        return OpenDirectory(self.path / name, os.open(name, _DIRECTORY, dir_fd=self.descriptor))

    def open(self, name: str, flags: int) -> IO[bytes]:
        """Open a file in it without following a link, for writing if ``flags`` say so. Raises OSError."""
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(self._named(name), flags, 0o600, dir_fd=self.descriptor)
        if flags & os.O_EXCL and sys.platform != "win32":
            os.fchmod(descriptor, 0o600)  # as in `make_directories`
        return os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "rb")

    def names(self) -> list[str]:
        """Return the names in it, sorted."""
        with os.scandir(self.path if self.descriptor is None else self.descriptor) as entries:
            return sorted(entry.name for entry in entries)

    def status(self, name: str) -> os.stat_result:
        """Return the status of a name, or of a link itself. Raises FileNotFoundError."""
        return os.stat(self._named(name), dir_fd=self.descriptor, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Remove a file. Raises OSError."""
        os.unlink(self._named(name), dir_fd=self.descriptor)

    def rmdir(self, name: str) -> None:
        """Remove an empty directory. Raises OSError."""
        os.rmdir(self._named(name), dir_fd=self.descriptor)

    def again(self) -> OpenDirectory:
        """Return a duplicate, to be closed separately."""
        return OpenDirectory(self.path, os.dup(self.descriptor) if self.descriptor is not None else None)

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor is not None:
            os.close(self.descriptor)

    def _named(self, name: str) -> str:
        return name if self.descriptor is not None else str(self.path / name)


def open_private_directory(path: Path) -> OpenDirectory:
    """Open a directory, making it if it does not exist. Raises OSError as `private_directory` does."""
    if not os.path.lexists(path):
        _check_way(path.absolute().parent, must_exist=False)
        make_directories(path)
    return open_safe_directory(path)


def open_safe_directory(path: Path) -> OpenDirectory:
    """Open an existing directory. Raises OSError as `private_directory` does.

    The directory is checked through its descriptor, so that nothing can replace it between check and use.
    """
    if sys.platform == "win32":
        path.stat()
        return OpenDirectory(path.resolve(), None)
    _check_way(path.absolute())
    real = path.resolve()
    descriptor = os.open(real, _DIRECTORY)
    try:
        status = os.fstat(descriptor)
        foreign = status.st_uid not in {0, os.geteuid()}
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if foreign or shared:
            raise PermissionError(f"{path} is {'owned by another user' if foreign else 'writable by others'}")
    except BaseException:
        os.close(descriptor)
        raise
    return OpenDirectory(real, descriptor)


def is_ours(status: os.stat_result) -> bool:
    """Whether this user owns the file with this status."""
    return sys.platform == "win32" or status.st_uid == os.geteuid()


def _check_way(path: Path, *, must_exist: bool = True) -> None:
    """Raise PermissionError if a directory or link along the path is another user's: it could lead anywhere."""
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
                raise PermissionError(f"{path} is under another user's control: {above} is {what} of theirs")
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
