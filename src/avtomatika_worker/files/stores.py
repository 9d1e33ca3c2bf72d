"""Object stores. The only module that knows obstore, which is loaded when it is first needed."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from avtomatika_worker._atexit import give_native_threads_time
from avtomatika_worker._extras import install_hint
from avtomatika_worker.errors import (
    DependencyError,
    DependencyMissingError,
    InvalidInputError,
    ObjectChangedError,
    TaskError,
    TransientError,
    UnsafeNameError,
)
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.egress import EgressProxy
from avtomatika_worker.files.egress_route import Allowed, Authority, Problem, Route
from avtomatika_worker.files.hosts import credential_hosts
from avtomatika_worker.files.location import FILE, Location, locate
from avtomatika_worker.files.names import resolved
from avtomatika_worker.files.objects import ObjectInfo
from avtomatika_worker.files.observer import Observer
from avtomatika_worker.files.sources import Sources
from avtomatika_worker.files.store_settings import StoreSettings, retry_config

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_T = TypeVar("_T")

_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://\S*|\?\S*")
_MOST_CLIENTS: Final = 32
_LISTING_TIMEOUT: Final = 600.0
"""Seconds for all pages of a listing: a store may have no last one."""
_TIMEOUTS: Final = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "300s"}
"""Of one request, which moves one part at most."""
_CLOUDS: Final = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""How obstore's variables begin."""

_ENDPOINTS: Final = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
"""What obstore calls a store's address."""

_ANSWER: Final = 1024 * 1024
"""Bytes that an answer may have beside the object: heads, errors, TLS, and credentials that are fetched first."""

_PAGE: Final = 16 * 1024 * 1024
"""Bytes of one page of a listing: S3's largest have 1,000 keys of 1 KiB, Azure's 5,000."""

_PART_ANSWERS: Final = 32 * 1024 * 1024
"""Bytes of the answers to all parts of an upload, of which there are 10,000 at most."""


@dataclass(frozen=True, slots=True)
class _Client:
    """A client of obstore's for one bucket, and its way to the network."""

    store: ObjectStore
    route: Route


class Stores:
    """The stores of a worker, one client a bucket."""

    def __init__(self, settings: StoreSettings, disk: Disk, observer: Observer) -> None:
        self.settings: StoreSettings = settings
        self._observer = observer
        self._disk = disk
        self._clients: dict[tuple[str, str, bool], _Client] = {}
        self._egress = EgressProxy(settings.proxy_for)
        self._file_root: Path | None = None
        self._sources: Sources | None = None

    def close(self) -> None:
        """End all connections."""
        self._clients.clear()
        self._egress.close()

    async def locate(self, uri: str) -> Location:
        """Take a URI apart and check it; for ``file://`` that looks at the disk. Raises a `TaskError`."""
        root = self.settings.file_root
        if root is not None and self._file_root is None and uri.startswith(FILE):
            self._file_root = await self._disk.run(root.resolve)
        location = locate(uri, self._file_root)
        await self.check(location)
        return location

    async def check(self, location: Location) -> None:
        """Raise `UnsafeNameError` for a file that a symbolic link takes out of the root."""
        root = self._file_root
        if location.scheme == FILE and root is not None:
            await self._disk.run(resolved, root, root / location.key, location.uri)

    def check_source(self, location: Location, job_id: str) -> None:
        """Check what a task names, which has been located.

        Raises `DependencyMissingError` when this worker has no such store, `SourceRefusedError` for what a task of this
        job may neither read nor write.
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
        """Return a place that is configured; None for ``file://`` while nothing has named any yet."""
        root = self._file_root or self.settings.file_root
        try:
            return locate(uri, root.resolve() if root is not None else None)
        except TaskError as error:
            raise DependencyMissingError(f"{uri:.300} cannot be used: {error}") from None

    def target(self, key: str) -> str:
        """Return the URI of ``key`` where results go. Raises `DependencyMissingError` when there is no such place."""
        place = self.settings.results_uri
        if place is not None:
            return place + key
        raise DependencyMissingError(
            "a file of the task is to be stored, but there is no place for it: S3_DEFAULT_BUCKET is not set"
        )

    async def head(self, location: Location) -> ObjectInfo:
        """Return what is known of an object. Raises a `TaskError`."""
        client = await self._client(location)
        return await self._call(
            "head", location, client, lambda obstore: obstore.head_async(client.store, location.key), _info
        )

    async def list(self, location: Location, check: Callable[[int], None]) -> dict[str, ObjectInfo]:
        """Return all objects below a prefix, by their names relative to it. Raises a `TaskError`.

        ``check`` is given their number after each page, and may raise: a listing need not end.
        """
        client = await self._client(location)
        skip = len(location.key) + 1 if location.key else 0

        async def pages(obstore: Any) -> dict[str, ObjectInfo]:
            found: dict[str, ObjectInfo] = {}
            count = 0
            with client.route.granting(_PAGE) as grant_again:
                async with asyncio.timeout(_LISTING_TIMEOUT):
                    async for page in obstore.list(client.store, prefix=f"{location.key}/" if location.key else None):
                        grant_again()
                        count += len(page)  # not of those found: the same page may come again and again
                        check(count)
                        found.update({each["path"][skip:]: _info(each) for each in page})
            return found

        found: dict[str, ObjectInfo] = await self._call("list", location, client, pages, lambda value: value)
        found.pop("", None)  # what consoles make to show an empty directory
        return found

    async def get(self, location: Location, info: ObjectInfo, start: int, end: int) -> Any:
        """Return the bytes from ``start`` to ``end``. Raises `ObjectChangedError` when it is another object."""
        client = await self._client(location)
        options: dict[str, Any] = {"if_match": info.etag} if info.etag and location.scheme != FILE else {}
        if (start, end) != (0, info.size):
            options["range"] = (start, end)

        async def read(obstore: Any) -> Any:
            result = await obstore.get_async(client.store, location.key, options=options)
            meta = _info(result.meta)
            if meta.size != info.size or (meta.etag != info.etag):  # there are stores that ignore If-Match
                raise ObjectChangedError(f"{location.uri} was replaced while it was read")
            return await self._body(location, result, end - start)

        content = await self._call("get", location, client, read, lambda value: value, end - start)
        if len(content) != end - start:
            raise TransientError(f"{location.uri}: {len(content)} bytes came instead of {end - start}")
        self._observer.moved("get", len(content))
        return content

    async def _body(self, location: Location, result: Any, size: int) -> Any:
        """Return the body of an answer, which is read no further than a little beyond ``size`` bytes."""
        parts: list[Any] = []
        length = 0
        async for part in result.stream(min_chunk_size=max(size, 1)):
            parts.append(part)
            length += len(part)
            if length > size:
                raise TransientError(
                    f"{location.uri:.300}: the store sends more than the {size} bytes it was asked for"
                )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def put(self, location: Location, content: Path | AsyncIterable[bytes], part_size: int) -> str | None:
        """Store a small file, or parts of a large one, which go out side by side, and return its etag.

        Parts are retried one by one, by obstore. Raises a `TaskError`.
        """
        parts = not isinstance(content, Path)
        client = await self._client(location, retries=parts)
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
        except InvalidInputError as error:  # what is not there when something is stored is no object
            raise DependencyError(f"{location.uri}: there is no such bucket", error.details) from None

    async def delete(self, location: Location) -> None:
        """Delete an object. Raises a `TaskError`."""
        client = await self._client(location)
        await self._call(
            "delete", location, client, lambda obstore: obstore.delete_async(client.store, location.key), lambda _: None
        )

    # ------------------------------------------------------------------------------------------ inside

    async def _client(self, location: Location, *, retries: bool = False) -> _Client:
        """Return the client of a bucket; only one that is to send parts ``retries`` itself."""
        key = (location.scheme, location.bucket, retries)
        if key not in self._clients:
            if len(self._clients) >= _MOST_CLIENTS:
                self._clients.clear()
            self._clients[key] = await self._disk.run(self._connect, location, retries)
        return self._clients[key]

    def _connect(self, location: Location, retries: bool) -> _Client:
        """Make a client. It takes a while: the library is loaded, and so are certificates."""
        try:
            from obstore import store
        except ImportError:
            hint = f"object stores need obstore; {install_hint('s3')}"
            raise DependencyMissingError(f"{location.uri}: {hint}", {"package": "obstore"}) from None
        give_native_threads_time()
        if location.scheme == FILE:
            return _Client(store.LocalStore(self.settings.file_root, mkdir=True), Route())
        try:
            url = self._store_url(location)
            if url.scheme == "http" and not self._allows_http(location.scheme):
                raise ValueError(f"plain HTTP is allowed with {_CLOUDS[location.scheme]}_ALLOW_HTTP=true only")
            route = Route(self._allowed(location, url))
            keys: dict[str, Any] = {_ENDPOINTS[location.scheme]: url._replace(scheme="http").geturl()}
            if self._has_keys(location):
                # Not as options: obstore would add an AWS_SESSION_TOKEN of the environment, which is of other keys.
                keys["credential_provider"] = self._credentials
            return _Client(self._made(location, route, retries=retries, **keys), route)
        except Exception as error:  # noqa: BLE001 - every kind of wrong configuration has an error of its own
            raise DependencyMissingError(f"{location.uri}: no such store here: {self._reported(error)}") from None

    def _store_url(self, location: Location) -> SplitResult:
        """Find out where obstore would look for a bucket, of all its settings: by a URL that it signs with no keys."""
        import obstore

        if location.scheme == "gs":
            return self._google_url(location)
        client = self._made(location, Route(), retries=False, credential_provider=_no_keys)
        sign: Any = obstore.sign  # of those three kinds of stores
        url = urlsplit(cast("str", sign(client, "GET", "x", timedelta(seconds=60))))
        end = f"/{location.bucket}/x"
        path = url.path.removesuffix(end if url.path.endswith(end) else "/x")
        return SplitResult(url.scheme, url.netloc, path, "", "")

    def _google_url(self, location: Location) -> SplitResult:
        """Find it out by what obstore asks for first: without keys it signs nothing for Google."""
        import obstore

        nowhere = Route()
        problem: Exception | None = None
        try:
            obstore.head(self._made(location, nowhere, retries=False, skip_signature=True), "x")
        except Exception as error:  # noqa: BLE001 - it leads nowhere; what counts is what it asked for
            problem = error
        if not nowhere.asked:
            raise problem or RuntimeError("it asks nobody")
        scheme, (host, port) = nowhere.asked[0]
        default = port == (443 if scheme == "https" else 80)
        return SplitResult(scheme, host if default else f"{host}:{port}", "", "", "")

    def _allowed(self, location: Location, url: SplitResult) -> Allowed:
        tls: ssl.SSLContext | None = None
        port = url.port or 80
        if url.scheme == "https":
            if url.port == 80:
                raise ValueError("https:// on port 80 is not supported")
            tls = ssl.create_default_context()
            if self.settings.ca_path is not None:
                tls.load_verify_locations(self.settings.ca_path)
        hosts = (
            frozenset[Authority]()
            if self._has_keys(location)
            else credential_hosts(location.scheme, self.settings.region)
        )
        return Allowed((url.hostname or "", port), tls, hosts)

    def _made(self, location: Location, route: Route, *, retries: bool, **more: Any) -> ObjectStore:
        from obstore import store

        settings = self.settings
        options: dict[str, Any] = {
            "client_options": {**_TIMEOUTS, **self._client_options(), "proxy_url": self._egress.url(route)},
            "retry_config": retry_config(settings) if retries else {"max_retries": 0},
        }
        if location.scheme != "s3":
            return store.from_url(f"{location.scheme}://{location.bucket}", **options, **more)
        if settings.endpoint_url is not None:
            options["endpoint"] = settings.endpoint_url
        return store.S3Store(location.bucket, region=settings.region, **{**options, **more})

    def _has_keys(self, location: Location) -> bool:
        return location.scheme == "s3" and self.settings.access_key is not None

    def _credentials(self) -> dict[str, Any]:
        keys = {"access_key_id": self.settings.access_key, "secret_access_key": self.settings.secret_key}
        return {**keys, "token": None, "expires_at": None}

    def _client_options(self) -> dict[str, Any]:
        # Plain HTTP to the proxy; what it speaks to the store is another matter.
        options: dict[str, Any] = {"allow_http": True, "user_agent": "avtomatika-worker"}
        if self.settings.ca_path is not None:
            options["root_certificate"] = self.settings.ca_path.read_bytes()
        return options

    def _allows_http(self, scheme: str) -> bool:
        """Whether plain HTTP may be spoken. obstore's own variables for that have no effect beside other options."""
        if scheme == "s3" and self.settings.endpoint_url is not None:
            return self.settings.endpoint_url.startswith("http://")
        variables = [f"{_CLOUDS[scheme]}_ALLOW_HTTP", *(["AZURE_STORAGE_USE_EMULATOR"] if scheme == "az" else [])]
        return any(os.environ.get(each, "").lower() in {"1", "true", "yes", "on"} for each in variables)

    async def _call(
        self,
        name: str,
        location: Location,
        client: _Client,
        call: Callable[[Any], Awaitable[Any]],
        read: Callable[[Any], _T],
        size: int = 0,
    ) -> _T:
        """Make a call of obstore's that ``size`` bytes may come for.

        Its errors become ours, without it as cause: it repeats all of the answer.
        """
        import obstore

        began = time.monotonic()
        with self._observer.operation(name, location), client.route.granting(size + size // 50 + _ANSWER):
            try:
                return read(await call(obstore))
            except TaskError:
                raise
            except Exception as error:  # noqa: BLE001 - obstore raises kinds of its own and Python's
                raise self._error(location, error, client.route.problem_since(began)) from None

    def _error(self, location: Location, error: Exception, problem: Problem | None) -> TaskError:
        from obstore import exceptions

        facts = {"uri": location.uri[:300]}
        if problem is not None:
            kind = TransientError if problem.passing else DependencyError
            return kind(f"{location.uri}: the store cannot be used: {problem.text}", facts)
        match error:
            case FileNotFoundError():
                return InvalidInputError(f"{location.uri}: there is no such object", facts)
            case exceptions.PreconditionError():
                return ObjectChangedError(f"{location.uri} was replaced while it was read", facts)
            case exceptions.PermissionDeniedError() | exceptions.UnauthenticatedError():
                return DependencyError(f"{location.uri}: access denied with this worker's credentials", facts)
            case ValueError() | exceptions.InvalidPathError():
                return UnsafeNameError(location.uri, f"no such key can be read: {self._reported(error)}")
            case exceptions.NotSupportedError() | exceptions.UnknownConfigurationKeyError():
                return DependencyMissingError(f"{location.uri}: {self._reported(error)}", facts)
            case _:
                return TransientError(f"{location.uri}: {self._reported(error)}", facts)

    def _reported(self, error: Exception) -> str:
        """Return what an error says, without an answer's body, our keys, and where the store is: URLs can be signed."""
        text = str(error).partition("\n")[0].partition("<")[0]
        text = _URL.sub("the store", text)
        for secret in (self.settings.secret_key, self.settings.access_key):
            text = text.replace(secret, "***") if secret else text
        return text.strip()[:300] or type(error).__name__


def _no_keys() -> dict[str, Any]:
    """Return keys of nobody, for S3 and for Azure, which go nowhere."""
    return {"access_key_id": "x", "secret_access_key": "x", "access_key": "eHg=", "token": None, "expires_at": None}


def _info(meta: Any) -> ObjectInfo:
    etag = meta["e_tag"]
    if etag and not etag.endswith('"'):  # Azure's listings have them without the quotes that its other answers have
        etag = f'"{etag}"'
    return ObjectInfo(meta["size"], etag)
