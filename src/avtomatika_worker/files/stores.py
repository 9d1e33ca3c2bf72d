"""Object stores. Only this module and `clients` know obstore, which is loaded when it is first needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from avtomatika_worker.errors import (
    DependencyError,
    DependencyMissingError,
    InvalidInputError,
    ObjectChangedError,
    TaskError,
    TransientError,
    UnsafeNameError,
)
from avtomatika_worker.files.clients import Client, Clients, reported
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.egress_route import Problem
from avtomatika_worker.files.location import FILE, Location, locate
from avtomatika_worker.files.names import resolved
from avtomatika_worker.files.objects import ObjectInfo
from avtomatika_worker.files.observer import Observer
from avtomatika_worker.files.sources import Sources
from avtomatika_worker.files.store_settings import StoreSettings

_T = TypeVar("_T")

_LISTING_TIMEOUT: Final = 600.0
"""Seconds for all pages of a listing: a store's may never end."""

_ANSWER: Final = 1024 * 1024
"""Bytes that an answer may have besides the object: heads, errors, TLS, and credentials fetched first."""

_PAGE: Final = 16 * 1024 * 1024
"""Bytes of one page of a listing: S3's largest have 1,000 keys of 1 KiB, Azure's 5,000."""

_PART_ANSWERS: Final = 32 * 1024 * 1024
"""Bytes of the answers to all parts of an upload, at most 10,000 of them."""


class Stores:
    """A worker's stores, with one client per bucket."""

    def __init__(self, settings: StoreSettings, disk: Disk, observer: Observer) -> None:
        self.settings: StoreSettings = settings
        self._observer = observer
        self._disk = disk
        self._clients = Clients(settings, disk)
        self._file_root: Path | None = None
        self._sources: Sources | None = None

    def close(self) -> None:
        """End all connections."""
        self._clients.close()

    async def locate(self, uri: str) -> Location:
        """Parse and check a URI; for ``file://``, this accesses the disk. Raises a `TaskError`."""
        root = self.settings.file_root
        if root is not None and self._file_root is None and uri.startswith(FILE):
            self._file_root = await self._disk.run(root.resolve)
        location = locate(uri, self._file_root)
        await self.check(location)
        return location

    async def check(self, location: Location) -> None:
        """Raise `UnsafeNameError` for a file that a symbolic link leads out of the root."""
        root = self._file_root
        if location.scheme == FILE and root is not None:
            await self._disk.run(resolved, root, root / location.key, location.uri)

    def check_source(self, location: Location, job_id: str) -> None:
        """Check a location named by a task.

        Raises `DependencyMissingError` if this worker has no such store, `SourceRefusedError` if a task of this job may
        neither read nor write there.
        """
        if location.scheme == "s3" and not self.settings.has_s3:
            raise DependencyMissingError(
                f"{location.uri:.300}: no S3 store is configured (S3_ENDPOINT_URL, S3_ACCESS_KEY, S3_DEFAULT_BUCKET)"
            )
        if self._sources is None:
            listed = self.settings.sources
            known = None if listed is None else [each for uri in listed if (each := self._source(uri)) is not None]
            place = self.settings.results_uri
            self._sources = Sources(known, self._source(place) if place is not None else None)
        self._sources.check(location, job_id)

    def _source(self, uri: str) -> Location | None:
        """Return the location of a configured URI, or None for ``file://`` as long as nothing has named any."""
        root = self._file_root or self.settings.file_root
        try:
            return locate(uri, root.resolve() if root is not None else None)
        except TaskError as error:
            raise DependencyMissingError(f"{uri:.300} cannot be used: {error}") from None

    async def identity(self, location: Location) -> str:
        """Return what distinguishes an object from all others, those of the same URI in another store included."""
        allowed = (await self._clients.of(location)).route.allowed
        return location.uri if allowed is None else f"{allowed.place[0]}:{allowed.place[1]} {location.uri}"

    def target(self, key: str) -> str:
        """Return the URI of ``key`` where results go. Raises `DependencyMissingError` if there is no such place."""
        place = self.settings.results_uri
        if place is not None:
            return place + key
        raise DependencyMissingError(
            "the task has a file to store, but there is no place for it: S3_DEFAULT_BUCKET is not set"
        )

    async def head(self, location: Location) -> ObjectInfo:
        """Return the facts about an object. Raises a `TaskError`."""
        client = await self._clients.of(location)
        return await self._call(
            "head", location, client, lambda obstore: obstore.head_async(client.store, location.key), _info
        )

    async def list(self, location: Location, check: Callable[[int], None]) -> dict[str, ObjectInfo]:
        """Return all objects under a prefix, by their names relative to it. Raises a `TaskError`.

        ``check`` gets their number after each page, and may raise: a listing may never end.
        """
        client = await self._clients.of(location)
        skip = len(location.key) + 1 if location.key else 0

        async def pages(obstore: Any) -> dict[str, ObjectInfo]:
            found: dict[str, ObjectInfo] = {}
            count = 0
            with client.route.granting(_PAGE) as grant_again:
                async with asyncio.timeout(_LISTING_TIMEOUT):
                    async for page in obstore.list(client.store, prefix=f"{location.key}/" if location.key else None):
                        grant_again()
                        count += len(page)  # counts entries, not names: the same page may repeat endlessly
                        check(count)
                        found.update({each["path"][skip:]: _info(each) for each in page})
            return found

        found: dict[str, ObjectInfo] = await self._call("list", location, client, pages, lambda value: value)
        found.pop("", None)  # the marker that consoles create for an empty directory
        return found

    async def get(self, location: Location, info: ObjectInfo, start: int, end: int) -> Any:
        """Return the bytes from ``start`` to ``end``. Raises `ObjectChangedError` if the object was replaced."""
        client = await self._clients.of(location)
        options: dict[str, Any] = {"if_match": info.etag} if info.etag and location.scheme != FILE else {}
        if (start, end) != (0, info.size):
            options["range"] = (start, end)

        async def read(obstore: Any) -> Any:
            result = await obstore.get_async(client.store, location.key, options=options)
            meta = _info(result.meta)
            if meta.size != info.size or (meta.etag != info.etag):  # some stores ignore If-Match
                raise ObjectChangedError(f"{location.uri} was replaced while it was read")
            return await self._body(location, result, end - start)

        content = await self._call("get", location, client, read, lambda value: value, end - start)
        if len(content) != end - start:
            raise TransientError(f"{location.uri}: got {len(content)} bytes instead of {end - start}")
        self._observer.moved("get", len(content))
        return content

    async def _body(self, location: Location, result: Any, size: int) -> Any:
        """Return the body of an answer, read at most a little beyond ``size`` bytes."""
        parts: list[Any] = []
        length = 0
        async for part in result.stream(min_chunk_size=max(size, 1)):
            parts.append(part)
            length += len(part)
            if length > size:
                raise TransientError(f"{location.uri:.300}: the store sends more than the {size} bytes requested")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def put(self, location: Location, content: Path | AsyncIterable[bytes], part_size: int) -> str | None:
        """Store a small file, or a large one in concurrent parts, and return its etag.

        Parts are retried one by one, by obstore. Raises a `TaskError`.
        """
        parts = not isinstance(content, Path)
        client = await self._clients.of(location, retries=parts)
        options = {"use_multipart": parts, "chunk_size": part_size}
        most = self.settings.concurrency
        try:
            return await self._call(
                "put",
                location,
                client,
                lambda obstore: obstore.put_async(client.store, location.key, content, max_concurrency=most, **options),
                lambda result: cast("str | None", result.get("e_tag")),
                _PART_ANSWERS if parts else 0,
            )
        except InvalidInputError as error:  # what is missing when storing is not the object
            raise DependencyError(f"{location.uri}: there is no such bucket", error.details) from None

    async def delete(self, location: Location) -> None:
        """Delete an object. Raises a `TaskError`."""
        client = await self._clients.of(location)
        await self._call(
            "delete", location, client, lambda obstore: obstore.delete_async(client.store, location.key), lambda _: None
        )

    # ------------------------------------------------------------------------------------------ inside

    async def _call(
        self,
        name: str,
        location: Location,
        client: Client,
        call: Callable[[Any], Awaitable[Any]],
        read: Callable[[Any], _T],
        size: int = 0,
    ) -> _T:
        """Make an obstore call that may receive ``size`` bytes.

        Its errors become ours, without the original as the cause: that repeats the whole answer.
        """
        import obstore

        began = time.monotonic()
        with self._observer.operation(name, location), client.route.granting(size + size // 50 + _ANSWER):
            try:
                return read(await call(obstore))
            except TaskError:
                raise
            except Exception as error:  # noqa: BLE001 - obstore raises its own exceptions and Python's
                raise self._error(location, error, client.route.problem_since(began)) from None

    def _error(self, location: Location, error: Exception, problem: Problem | None) -> TaskError:
        from obstore import exceptions

        facts = {"uri": location.uri[:300]}
        if problem is not None:
            kind = TransientError if problem.passing else DependencyError
            return kind(f"{location.uri}: the store cannot be used: {problem.text}", facts)
        match error:
            case FileNotFoundError():
                return InvalidInputError(f"{location.uri}: no such object", facts)
            case exceptions.PreconditionError():
                return ObjectChangedError(f"{location.uri} was replaced while it was read", facts)
            case exceptions.PermissionDeniedError() | exceptions.UnauthenticatedError():
                return DependencyError(f"{location.uri}: access denied with this worker's credentials", facts)
            case ValueError() | exceptions.InvalidPathError():
                return UnsafeNameError(location.uri, f"this key cannot be read: {reported(error, self.settings)}")
            case exceptions.NotSupportedError() | exceptions.UnknownConfigurationKeyError():
                return DependencyMissingError(f"{location.uri}: {reported(error, self.settings)}", facts)
            case _:
                return TransientError(f"{location.uri}: {reported(error, self.settings)}", facts)


def _info(meta: Any) -> ObjectInfo:
    etag = meta["e_tag"]
    if etag and not etag.endswith('"'):  # Azure's listings lack the quotes that its other answers have
        etag = f'"{etag}"'
    return ObjectInfo(meta["size"], etag, meta["last_modified"].timestamp())
