"""Clients of object stores: obstore's, each with the one way to the network that it has."""

from __future__ import annotations

import os
import re
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import SplitResult, urlsplit

import msgspec

from avtomatika_worker._atexit import give_native_threads_time
from avtomatika_worker._extras import install_hint
from avtomatika_worker.errors import DependencyMissingError
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.egress import EgressProxy
from avtomatika_worker.files.egress_route import Allowed, Authority, Route
from avtomatika_worker.files.hosts import credential_hosts
from avtomatika_worker.files.location import FILE, Location
from avtomatika_worker.files.store_settings import StoreSettings, retry_config

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}://\S*|\?\S*")
_READ: Final = 2_000
"""Characters of an error's text that are looked at: it repeats an answer's body, of up to a megabyte."""

_MOST_CLIENTS: Final = 32

_TIMEOUTS: Final = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "300s"}
"""Limit for one request, in seconds; it moves at most one part."""

_CLOUDS: Final = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""Prefixes of obstore's variables."""

_ENDPOINTS: Final = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
"""obstore's names for a store's address."""


class Client(msgspec.Struct, frozen=True):
    """An obstore client for one bucket, and its route to the network."""

    store: ObjectStore
    route: Route


class Clients:
    """The clients of a worker, one a bucket. Each is made when it is first needed."""

    def __init__(self, settings: StoreSettings, disk: Disk) -> None:
        self._settings = settings
        self._disk = disk
        self._clients: dict[tuple[str, str, bool], Client] = {}
        self._egress = EgressProxy(settings.proxy_for)

    def close(self) -> None:
        """End all connections."""
        self._clients.clear()
        self._egress.close()

    async def of(self, location: Location, *, retries: bool = False) -> Client:
        """Return the client of a bucket; only a client for parts ``retries`` by itself."""
        key = (location.scheme, location.bucket, retries)
        if key not in self._clients:
            if len(self._clients) >= _MOST_CLIENTS:
                self._clients.clear()
            self._clients[key] = await self._disk.run(self._connect, location, retries)
        return self._clients[key]

    def _connect(self, location: Location, retries: bool) -> Client:
        """Make a client. This takes a while, as it loads the library and certificates."""
        try:
            from obstore import store
        except ImportError:
            hint = f"object stores need obstore; {install_hint('s3')}"
            raise DependencyMissingError(f"{location.uri}: {hint}", {"package": "obstore"}) from None
        give_native_threads_time()
        if location.scheme == FILE:
            return Client(store.LocalStore(self._settings.file_root, mkdir=True), Route())
        try:
            url = self._store_url(location)
            if url.scheme == "http" and not self._allows_http(location.scheme):
                raise ValueError(f"plain HTTP is allowed only with {_CLOUDS[location.scheme]}_ALLOW_HTTP=true")
            route = Route(self._allowed(location, url))
            keys: dict[str, Any] = {_ENDPOINTS[location.scheme]: url._replace(scheme="http").geturl()}
            if self._has_keys(location):
                # Not as options: obstore would add the environment's AWS_SESSION_TOKEN, which belongs to other keys.
                keys["credential_provider"] = self._credentials
            return Client(self._made(location, route, retries=retries, **keys), route)
        except Exception as error:  # noqa: BLE001 - every kind of configuration error has its own exception
            raise DependencyMissingError(
                f"{location.uri}: no such store here: {reported(error, self._settings)}"
            ) from None

    def _store_url(self, location: Location) -> SplitResult:
        """Return where obstore would look for a bucket, given its settings: from a URL that it signs without keys."""
        import obstore

        if location.scheme == "gs":
            return self._google_url(location)
        client = self._made(location, Route(), retries=False, credential_provider=_no_keys)
        sign: Any = obstore.sign  # for those three kinds of stores
        url = urlsplit(cast("str", sign(client, "GET", "x", timedelta(seconds=60))))
        end = f"/{location.bucket}/x"
        path = url.path.removesuffix(end if url.path.endswith(end) else "/x")
        return SplitResult(url.scheme, url.netloc, path, "", "")

    def _google_url(self, location: Location) -> SplitResult:
        """Return it from obstore's first request: without keys it signs nothing for Google."""
        import obstore

        nowhere = Route()
        problem: Exception | None = None
        try:
            obstore.head(self._made(location, nowhere, retries=False, skip_signature=True), "x")
        except Exception as error:  # noqa: BLE001 - it leads nowhere; only the request counts
            problem = error
        if not nowhere.asked:
            raise problem or RuntimeError("it asks nobody")
        scheme, (host, port) = nowhere.asked[0]
        default = port == (443 if scheme == "https" else 80)
        return SplitResult(scheme, host if default else f"{host}:{port}", "", "", "")

    def _allowed(self, location: Location, url: SplitResult) -> Allowed:
        host, tls = url.hostname or "", None
        if url.scheme == "https":
            tls = ssl.create_default_context()
            if self._settings.ca_path is not None:
                tls.load_verify_locations(self._settings.ca_path)
        hosts = (
            frozenset[Authority]()
            if self._has_keys(location)
            else credential_hosts(location.scheme, self._settings.region)
        )
        # Without a port in its URL, obstore asks for HTTP's: the scheme that it is given is not the store's.
        return Allowed((host, url.port or 80), (host, url.port or (443 if tls else 80)), tls, hosts)

    def _made(self, location: Location, route: Route, *, retries: bool, **more: Any) -> ObjectStore:
        from obstore import store

        settings = self._settings
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
        return location.scheme == "s3" and self._settings.access_key is not None

    def _credentials(self) -> dict[str, Any]:
        keys = {"access_key_id": self._settings.access_key, "secret_access_key": self._settings.secret_key}
        return {**keys, "token": None, "expires_at": None}

    def _client_options(self) -> dict[str, Any]:
        # Plain HTTP to our proxy, which may speak TLS to the store.
        options: dict[str, Any] = {"allow_http": True, "user_agent": "avtomatika-worker"}
        if self._settings.ca_path is not None:
            options["root_certificate"] = self._settings.ca_path.read_bytes()
        return options

    def _allows_http(self, scheme: str) -> bool:
        """Whether plain HTTP is allowed. obstore's own variables for that have no effect next to other options."""
        if scheme == "s3" and self._settings.endpoint_url is not None:
            return self._settings.endpoint_url.startswith("http://")
        variables = [f"{_CLOUDS[scheme]}_ALLOW_HTTP", *(["AZURE_STORAGE_USE_EMULATOR"] if scheme == "az" else [])]
        return any(os.environ.get(each, "").lower() in {"1", "true", "yes", "on"} for each in variables)


def reported(error: Exception, settings: StoreSettings) -> str:
    """Return an error's text without the answer's body, our keys and the store's address: URLs can be signed."""
    text = str(error)[:_READ].partition("\n")[0].partition("<")[0]
    text = _URL.sub("the store", text)
    for secret in (settings.secret_key, settings.access_key):
        text = text.replace(secret, "***") if secret else text
    return text.strip()[:300] or type(error).__name__


def _no_keys() -> dict[str, Any]:
    """Return dummy keys for S3 and for Azure, which are never sent."""
    return {"access_key_id": "x", "secret_access_key": "x", "access_key": "eHg=", "token": None, "expires_at": None}
