"""Where checkpoints are stored: named blobs, each written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec

from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.ownership import make_directories, private_directory
from avtomatika_worker.world import REAL, World

TEMPORARY: Final = ".tmp-"
"""How the names of files begin that are not complete yet."""


class BlobGoneError(Exception):
    """There is no such blob."""


class Blob(msgspec.Struct, frozen=True):
    """A blob's size in bytes, and when it was written, in Unix seconds."""

    size: int
    modified: float


class Blobs(Protocol):
    """A place for blobs. Names have the form ``key/version/part``. Used on the main loop.

    All methods raise OSError or a `TaskError` when the place cannot be used.
    """

    @property
    def place(self) -> str:
        """Where it is, for people."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether many machines use it, which take turns in cleaning up."""
        ...

    async def put(self, name: str, source: Path) -> None:
        """Store a file's content: afterwards the blob is there as a whole."""
        ...

    async def get(self, name: str, target: Path) -> None:
        """Write a blob to a new file. Raises `BlobGoneError`."""
        ...

    async def list(self, prefix: str) -> dict[str, Blob]:
        """Return all blobs whose names begin with ``prefix``, a whole part of a name or nothing."""
        ...

    async def remove(self, names: Iterable[str]) -> None:
        """Remove blobs; those that are gone already count as removed."""
        ...


class DirectoryBlobs:
    """Blobs in a directory of this user's. Several workers may share it."""

    def __init__(self, directory: Path, disk: Disk, world: World = REAL) -> None:
        self._random = world.random
        self._directory = directory
        self._disk = disk

    @property
    def place(self) -> str:
        """The directory."""
        return str(self._directory)

    @property
    def is_shared(self) -> bool:
        """Whether many machines use it: this one's workers do."""
        return False

    async def put(self, name: str, source: Path) -> None:
        """Store a file's content; on return it is on the disk."""
        await self._disk.run(self._put, name, source)

    async def get(self, name: str, target: Path) -> None:
        """Write a blob to a new file."""
        await self._disk.run(self._get, name, target)

    async def list(self, prefix: str) -> dict[str, Blob]:
        """Return all blobs under ``prefix``."""
        return await self._disk.run(self._list, prefix)

    async def remove(self, names: Iterable[str]) -> None:
        """Remove blobs, and the directories that are empty then."""
        await self._disk.run(self._remove, list(names))

    def _put(self, name: str, source: Path) -> None:
        private_directory(self._directory)
        path = self._directory / name
        temporary = path.with_name(f"{TEMPORARY}{self._random.getrandbits(64):016x}")
        for _ in range(_TRIES):  # another worker may remove the directory as an empty one in this moment
            with contextlib.suppress(FileNotFoundError):
                make_directories(path.parent)
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600)
                break
        else:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
        try:
            with source.open("rb") as reading, os.fdopen(descriptor, "wb") as writing:
                shutil.copyfileobj(reading, writing, _COPY)
                _flush(writing)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        for each in (path.parent, path.parent.parent):
            _flush_directory(each)

    def _get(self, name: str, target: Path) -> None:
        with contextlib.ExitStack() as stack:
            try:
                reading = stack.enter_context(_opened(private_directory(self._directory) / name))
            except (FileNotFoundError, NotADirectoryError):
                raise BlobGoneError(name) from None
            writing = stack.enter_context(target.open("xb"))
            shutil.copyfileobj(reading, writing, _COPY)

    def _list(self, prefix: str) -> dict[str, Blob]:
        root = self._directory / prefix
        if not os.path.lexists(root):
            return {}
        private_directory(self._directory)
        found: dict[str, Blob] = {}
        for directory, _, names in os.walk(root):
            for path in (Path(directory, name) for name in names):
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    found[path.relative_to(self._directory).as_posix()] = Blob(status.st_size, status.st_mtime)
        return found

    def _remove(self, names: Iterable[str]) -> None:
        parents: set[Path] = set()
        for name in names:
            path = self._directory / name
            path.unlink(missing_ok=True)
            parents |= {each for each in path.parents if self._directory in each.parents}
        for each in sorted(parents, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):  # it is not empty, or gone
                each.rmdir()


_COPY: Final = 1024 * 1024
_TRIES: Final = 10
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def _opened(path: Path) -> IO[bytes]:
    """Open a file to read without following a link."""
    return os.fdopen(os.open(path, os.O_RDONLY | _NO_LINK | getattr(os, "O_BINARY", 0)), "rb")


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    """Ensure that a directory's entries survive a power failure."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):  # the file is there; some file systems cannot do this
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
