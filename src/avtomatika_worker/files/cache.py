"""Caches downloaded objects by store, URI and etag, for all tasks and all workers that share the directory.

    WORKER_BLOB_CACHE_DIR/ab/ab12…      an object, read-only, named by a hash of its store, URI and etag
    WORKER_BLOB_CACHE_DIR/ab/ab12….part being downloaded by the holder of …
    WORKER_BLOB_CACHE_DIR/ab.lock       … this lock

An object's modification time is a seal that shows that it is unmodified; its access time is its last use.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import shutil
import stat
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from avtomatika_worker.errors import DependencyMissingError
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.objects import ObjectInfo
from avtomatika_worker.files.ownership import make_directories, private_directory
from avtomatika_worker.files.workspaces import try_lock

_log: Final = logging.getLogger("avtomatika_worker.files")

_SEAL: Final = 1_000_000_000
"""The modification time of every object, in seconds: any write changes it."""

_READ_ONLY: Final = 0o444
_ABANDONED: Final = 3600.0
"""Seconds after which an abandoned download is garbage."""

_FICLONE: Final = 0x40049409
"""Linux: share the blocks of another file, copy-on-write."""

_NOT_HERE: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EACCES}
)
_POLL: Final = (0.01, 0.25)
"""First and last interval, in seconds, between checks of a lock held by another process."""

Download = Callable[[Path], Awaitable[None]]


class BlobCache:
    """Objects on disk, at most ``limit`` bytes of them; the least recently used goes first."""

    def __init__(self, directory: Path, limit: int, disk: Disk) -> None:
        self._directory = directory
        self._limit = limit
        self._disk = disk
        self._ready = False
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def provide(self, identity: str, info: ObjectInfo, path: Path, download: Download) -> bool:
        """Put the object at ``path``; return whether it was cached. If not, ``download`` was called, once for all
        concurrent callers.

        ``identity`` distinguishes the object from all others, whatever the store. The file is read-only. Raises what
        ``download`` raises.
        """
        if info.etag is None or info.size > self._limit:
            await download(path)
            return False
        if not self._ready:
            await self._disk.run(self._prepare)
            self._ready = True
        name = hashlib.sha256(f"{identity}\0{info.etag}".encode()).hexdigest()
        entry = self._directory / name[:2] / name
        turn = self._turns.setdefault(name, asyncio.Lock())
        async with turn:
            if await self._disk.run(_take, entry, info.size, path):
                return True
            async with self._locked(name[:2]):
                if await self._disk.run(_take, entry, info.size, path):  # another process was first
                    return True
                await self._fill(entry, download)
                await self._disk.run(_take, entry, info.size, path)
        await self._disk.run(self._evict)
        return False

    async def _fill(self, entry: Path, download: Download) -> None:
        await self._disk.run(make_directories, entry.parent)
        part = entry.with_name(f"{entry.name}.part")
        try:
            await download(part)
            await self._disk.run(_seal, part, entry)
        except BaseException:
            await self._disk.run(part.unlink, missing_ok=True)
            raise

    @contextlib.asynccontextmanager
    async def _locked(self, name: str) -> AsyncGenerator[None]:
        """Exclude other processes, and other objects with the same lock."""
        file = await self._disk.run((self._directory / f"{name}.lock").open, "ab")
        try:
            wait = _POLL[0]
            while sys.platform != "win32" and not try_lock(file):
                await asyncio.sleep(wait)
                wait = min(wait * 2, _POLL[1])
            yield
        finally:
            file.close()

    # ------------------------------------------------------------------------------------------ in a thread

    def _prepare(self) -> None:
        try:
            self._directory = private_directory(self._directory)
            if sys.platform != "win32" and self._directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                # It is sticky: others could put objects of theirs, or links, where ours would be.
                self._directory = private_directory(self._directory / f"worker-cache-{os.geteuid()}")
        except OSError as error:
            raise DependencyMissingError(f"WORKER_BLOB_CACHE_DIR={self._directory} cannot be used: {error}") from error

    def _evict(self) -> None:
        """Remove the least recently used objects until the rest is within the limit."""
        entries = sorted(self._entries(), key=lambda each: each.used)
        total = sum(each.size for each in entries)
        for each in entries:
            if total <= self._limit:
                return
            with contextlib.suppress(OSError):
                each.path.unlink()
                _log.debug("%s leaves the cache", each.path, extra={"action": "cache_evicted"})
            total -= each.size

    def _entries(self) -> list[_Entry]:
        found: list[_Entry] = []
        now = time.time()
        for path in self._directory.glob("??/*"):
            with contextlib.suppress(OSError):  # another process may have removed it
                status = path.stat()
                if path.suffix != ".part":
                    found.append(_Entry(path, status.st_size, status.st_atime))
                elif now - status.st_mtime > _ABANDONED:
                    path.unlink()
        return found


class _Entry(msgspec.Struct, frozen=True):
    path: Path
    size: int
    used: float


def _seal(part: Path, entry: Path) -> None:
    part.chmod(_READ_ONLY)
    os.utime(part, (time.time(), _SEAL))
    part.replace(entry)


def _take(entry: Path, size: int, path: Path) -> bool:
    """Put a cached object at ``path``; return whether there was an unmodified one."""
    try:
        status = entry.stat()
        if status.st_size != size or int(status.st_mtime) != _SEAL:
            _log.warning("%s was modified; downloading it again", entry, extra={"action": "cache_damaged"})
            entry.unlink()
            return False
        os.utime(entry, (time.time(), _SEAL))
        path.unlink(missing_ok=True)
        _link(entry, path)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return False
    return True


def _link(entry: Path, path: Path) -> None:
    """Make ``path`` the same as ``entry``: by shared blocks if the file system can, else by a hard link, else a copy.

    Blocks come first: a write to such a file, which root can still make, affects only the task's own copy.
    """
    if _share_blocks(entry, path):
        path.chmod(_READ_ONLY)
        return
    try:
        path.hardlink_to(entry)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        shutil.copyfile(entry, path)
        path.chmod(_READ_ONLY)


def _share_blocks(entry: Path, path: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with entry.open("rb") as source, path.open("xb") as target:
            fcntl.ioctl(target, _FICLONE, source.fileno())
    except FileNotFoundError:
        raise
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True
