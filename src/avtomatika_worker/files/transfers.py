"""Moves files between workspaces and stores: in concurrent parts, with retries, and never half complete."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from avtomatika_worker.errors import InvalidInputError, ObjectChangedError, TransientError, UnsafeNameError
from avtomatika_worker.files.cache import BlobCache
from avtomatika_worker.files.concurrency import side_by_side
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.location import Location
from avtomatika_worker.files.names import check_part, resolved
from avtomatika_worker.files.objects import Expect, ObjectInfo, expect_anything, plain_etag
from avtomatika_worker.files.observer import Observer
from avtomatika_worker.files.ownership import make_directories
from avtomatika_worker.files.permit import Permit
from avtomatika_worker.files.progress import NOTICE_AFTER, Notify, Progress
from avtomatika_worker.files.stores import Stores
from avtomatika_worker.files.web import Web, WebHosts
from avtomatika_worker.policy.backoff import Backoff
from avtomatika_worker.protocol.messages import FileMetadata
from avtomatika_worker.protocol.uris import is_web_url

_T = TypeVar("_T")
_log: Final = logging.getLogger("avtomatika_worker.files")

_MOST_PARTS: Final = 10_000
"""The most parts of one object that S3 accepts."""

_SMALL: Final = 8
"""Objects up to this fraction of a part are small: `_SMALL_AT_ONCE` times as many of them move concurrently."""

_SMALL_AT_ONCE: Final = 4

_MOST_OWN: Final = 1_000_000
"""Objects of the worker's own that a listing may have."""

_LARGE_UPLOADS: Final = 2
"""Concurrent large uploads, so that one does not block all others."""


class Transfers:
    """A worker's transfers, which share these limits. ``notice_after``: seconds between a transfer's progress reports.

    Memory: at most a few times ``concurrency × part_size``, whatever the sizes of the objects.
    """

    def __init__(
        self,
        stores: Stores,
        disk: Disk,
        observer: Observer,
        cache: BlobCache | None = None,
        *,
        notice_after: float = NOTICE_AFTER,
    ) -> None:
        self._stores = stores
        self._observer = observer
        self._disk = disk
        self._cache = cache
        settings = stores.settings
        self._web = Web(WebHosts(settings.hosts, settings.private_hosts), disk, settings.ca_path)
        self._notice_after = notice_after
        self._part_size = stores.settings.part_size
        most = stores.settings.concurrency
        self._parts = asyncio.Semaphore(most)
        self._small = asyncio.Semaphore(most * _SMALL_AT_ONCE)
        self._large_uploads = asyncio.Semaphore(_LARGE_UPLOADS)

    @property
    def stores_results(self) -> bool:
        """Whether there is a place for files of results."""
        return self._stores.settings.results_uri is not None

    def target(self, key: str) -> str:
        """Return the URI of ``key`` in the store for results. Raises `DependencyMissingError` if there is none."""
        return self._stores.target(key)

    # ------------------------------------------------------------------------------------------ down

    async def fetch(
        self,
        uri: str,
        directory: Path,
        name: str | None,
        notify: Notify,
        permit: Permit,
        expect: Expect = expect_anything,
    ) -> Path:
        """Download an object, or the tree under a prefix, into ``directory``; return its path.

        It is named ``name``, or after the object. Raises a `TaskError`, in which case nothing of an object is left.
        """
        if is_web_url(uri):
            return await self._fetch_web(uri, directory, name, permit, expect)
        location = await self._stores.locate(uri)
        await self._disk.run(self._stores.check_source, location, permit.job_id)
        name = name or location.name or location.bucket or "files"
        path = directory / check_part(name, uri)
        if location.is_prefix:
            await self._fetch_tree(location, path, notify, permit)
            return path
        info = await self._retried(location, lambda: self._stores.head(location))
        expect(info)
        permit.take(uri, info.size)
        with (
            self._observer.transfer(),
            Progress("download", uri, info.size, notify, after=self._notice_after) as progress,
        ):
            await self._disk.run(make_directories, path.parent)
            await self._fetch_object(location, info, path, progress)
        return path

    async def _fetch_web(self, url: str, directory: Path, name: str | None, permit: Permit, expect: Expect) -> Path:
        """Fetch a file from a web host. It is not retried: the orchestrator retries the task."""
        address = self._web.check(url)
        path = directory / check_part(name or address.name, address.shown)
        temporary = path.with_name(f".{uuid.uuid4().hex[:16]}.part")
        await self._disk.run(make_directories, path.parent)
        with self._observer.transfer():
            async with self._parts:
                try:
                    with await self._disk.run(temporary.open, "xb") as file:
                        self._observer.moved("get", await self._web.fetch(address, file, permit, expect))
                    await self._disk.run(os.replace, temporary, path)
                except BaseException:
                    await self._disk.run(temporary.unlink, missing_ok=True)
                    raise
        return path

    async def _fetch_tree(self, location: Location, path: Path, notify: Notify, permit: Permit) -> None:
        check = partial(permit.check_count, location.uri)
        found = await self._retried(location, lambda: self._stores.list(location, check))
        objects = _without_markers(found)
        if not objects:
            raise InvalidInputError(f"{location.uri}: there is no object under it", {"uri": location.uri[:300]})
        each = {name: location.below(name) for name in objects}  # all are checked before the first one is written
        for one in each.values():
            self._stores.check_source(one, permit.job_id)
        directories = {(path / name).parent for name in objects}
        await self._disk.run(_make_tree, path, directories)
        total = sum(info.size for info in objects.values())
        permit.take(location.uri, total, len(objects))
        with (
            self._observer.transfer(),
            Progress("download", location.uri, total, notify, after=self._notice_after) as progress,
        ):

            async def fetch(name: str) -> None:
                await self._stores.check(each[name])
                await self._fetch_object(each[name], objects[name], path / name, progress)

            await self._side_by_side(fetch, objects)

    async def _fetch_object(self, location: Location, info: ObjectInfo, path: Path, progress: Progress) -> None:
        async def download(target: Path) -> None:
            await self._download(location, info, target, progress)

        if self._cache is None:
            await download(path)
        elif await self._cache.provide(await self._stores.identity(location), info, path, download):
            progress.add(info.size)

    async def _download(self, location: Location, info: ObjectInfo, path: Path, progress: Progress) -> None:
        """Download to a temporary name and rename it: an existing file is complete."""
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        if info.size <= self._part_size:
            async with self._turn(info.size):
                content = await self._part(location, info, 0) if info.size else b""
                await self._disk.run(_write_whole, temporary, path, content)
            progress.add(info.size)
            return
        try:
            await self._disk.run(_preallocate, temporary, info.size)

            async def move(start: int) -> None:
                async with self._parts:
                    content = await self._part(location, info, start)
                    await self._disk.run(_write_part, temporary, start, content)
                progress.add(len(content))

            offsets = range(0, info.size, self._part_size)
            await self._side_by_side(move, offsets)
            await self._disk.run(os.replace, temporary, path)
        except BaseException:
            await self._disk.run(temporary.unlink, missing_ok=True)
            raise

    async def _part(self, location: Location, info: ObjectInfo, start: int) -> Any:
        end = min(start + self._part_size, info.size)
        return await self._retried(location, lambda: self._stores.get(location, info, start, end))

    # ------------------------------------------------------------------------------------------ up

    async def store(self, files: Mapping[str, Path], uri: str, notify: Notify, permit: Permit) -> FileMetadata:
        """Upload files and return the stored objects.

        ``files`` are named relative to ``uri``, which ends in ``/``; one without a name gets ``uri`` itself.
        Raises a `TaskError`.
        """
        location = await self._stores.locate(uri)
        await self._disk.run(self._stores.check_source, location, permit.job_id)
        sizes = await self._disk.run(lambda: {name: path.stat().st_size for name, path in files.items()})
        etags: dict[str, str | None] = {}
        with (
            self._observer.transfer(),
            Progress("upload", uri, sum(sizes.values()), notify, after=self._notice_after) as progress,
        ):

            async def upload(name: str) -> None:
                target = location.below(name) if location.is_prefix else location
                self._stores.check_source(target, permit.job_id)
                await self._stores.check(target)
                etags[name] = await self._upload(target, files[name], sizes[name], progress)

            await self._side_by_side(upload, files)
        etag = None if location.is_prefix else etags[""]
        return FileMetadata(uri=uri, size=progress.done, etag=plain_etag(etag))

    async def _upload(self, location: Location, path: Path, size: int, progress: Progress) -> str | None:
        if size > self._part_size:
            async with self._large_uploads:
                parts = _Parts(self._disk, path, max(self._part_size, math.ceil(size / _MOST_PARTS)), progress)
                etag = await self._stores.put(location, parts, parts.size)
                self._observer.moved("put", size)
                return etag
        async with self._turn(size):
            etag = await self._retried(location, lambda: self._stores.put(location, path, self._part_size))
        progress.add(size)
        self._observer.moved("put", size)
        return etag

    # ------------------------------------------------------------------------------------------ the worker's own

    async def put_own(self, path: Path, uri: str) -> None:
        """Upload a file to an object of the worker's own, where no task may read or write. Raises a `TaskError`."""
        location = await self._stores.locate(uri)
        size = await self._disk.run(lambda: path.stat().st_size)
        with self._observer.transfer(), Progress("upload", uri, size, _quietly, after=self._notice_after) as progress:
            await self._upload(location, path, size, progress)

    async def get_own(self, uri: str, path: Path) -> None:
        """Download an object of the worker's own. Raises a `TaskError`: `InvalidInputError` if there is none."""
        location = await self._stores.locate(uri)
        info = await self._retried(location, lambda: self._stores.head(location))
        with (
            self._observer.transfer(),
            Progress("download", uri, info.size, _quietly, after=self._notice_after) as progress,
        ):
            await self._download(location, info, path, progress)

    async def list_own(self, uri: str) -> dict[str, ObjectInfo]:
        """Return the objects of the worker's own under a prefix, by their relative names. Raises a `TaskError`.

        A listing that is refused looks like one that fails in passing; the facts about an object do not.
        """
        location = await self._stores.locate(uri)
        try:
            return await self._retried(location, lambda: self._stores.list(location, _check_own))
        except TransientError:
            with contextlib.suppress(InvalidInputError, TransientError):
                await self._stores.head(location.below("any"))
            raise

    async def delete_own(self, uri: str) -> None:
        """Delete an object of the worker's own; one that is gone counts as deleted. Raises a `TaskError`."""
        location = await self._stores.locate(uri)
        with contextlib.suppress(InvalidInputError):
            await self._retried(location, lambda: self._stores.delete(location))

    # ------------------------------------------------------------------------------------------ how

    def _turn(self, size: int) -> asyncio.Semaphore:
        return self._small if size <= self._part_size // _SMALL else self._parts

    async def _side_by_side(self, work: Callable[[_T], Awaitable[None]], items: Collection[_T]) -> None:
        """Do ``work`` for every item, as many at a time as may be in flight. The first error ends all of it."""
        most = self._stores.settings.concurrency * _SMALL_AT_ONCE
        await side_by_side(work, items, at_once=min(most, len(items)))

    async def _retried(self, location: Location, call: Callable[[], Awaitable[_T]]) -> _T:
        """Make a call, and retry it while it fails in a transient way. Raises the last error."""
        settings = self._stores.settings
        backoff = Backoff(settings.backoff)
        while True:
            try:
                return await call()
            except ObjectChangedError:
                raise
            except TransientError as error:
                delay = backoff.failed(random.random())
                if backoff.attempts >= settings.attempts:
                    raise
                _log.warning(
                    "attempt %d of %d failed, next in %.1f s: %s",
                    backoff.attempts,
                    settings.attempts,
                    delay,
                    error,
                    extra={"action": "transfer_retry", "uri": location.uri},
                )
                await asyncio.sleep(delay)


def _quietly(_message: str) -> None:
    """Report no progress: the transfer is none of the task's."""


def _check_own(count: int) -> None:
    """Raise for a listing that does not end."""
    if count > _MOST_OWN:
        raise TransientError(f"the store lists more than {_MOST_OWN} objects of this worker's own")


class _Parts:
    """A file's parts, in order, as requested by obstore."""

    def __init__(self, disk: Disk, path: Path, size: int, progress: Progress) -> None:
        self.size = size
        self._disk = disk
        self._path = path
        self._progress = progress
        self._start = 0
        self._began = time.monotonic()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content = await self._disk.run(_read_part, self._path, self._start, self.size)
        if not content:
            raise StopAsyncIteration
        self._start += len(content)
        self._progress.add(len(content))
        return content


def _without_markers(found: Mapping[str, ObjectInfo]) -> dict[str, ObjectInfo]:
    """Omit the empty objects that represent directories. Raises `UnsafeNameError` for one that is not empty."""
    parents = {name[:index] for name in found for index, character in enumerate(name) if character == "/"}
    for name in parents & found.keys():
        if found[name].size:
            raise UnsafeNameError(name, "it cannot be both a file and a directory")
    return {name: info for name, info in found.items() if name not in parents}


def _make_tree(root: Path, directories: Iterable[Path]) -> None:
    """Make directories below ``root``. Raises `UnsafeNameError` if an existing link leads out of it."""
    make_directories(root)
    root = root.resolve()
    for path in directories:
        resolved(root, path, str(path))
        make_directories(path)


def _preallocate(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _write_part(path: Path, start: int, content: Any) -> None:
    with path.open("r+b") as file:  # opened each time: a cancelled part leaves no open file behind
        file.seek(start)
        file.write(content)


def _write_whole(temporary: Path, path: Path, content: Any) -> None:
    try:
        with temporary.open("wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read_part(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)
