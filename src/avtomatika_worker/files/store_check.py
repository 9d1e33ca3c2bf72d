"""Checks whether files of results can be stored, for `worker doctor`, before there is a task."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from avtomatika_worker.errors import IntegrityMismatchError, TaskError
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.location import Location
from avtomatika_worker.files.observer import Observer
from avtomatika_worker.files.store_settings import StoreSettings
from avtomatika_worker.files.stores import Stores

Step = Literal["write", "read", "delete"]
_PREFIX: Final = "avtomatika-doctor"
_SIZE: Final = 1000


@dataclass(frozen=True, slots=True)
class StoreProbe:
    """The outcome. ``failed`` are the failed steps, each with its error; ``seconds`` is the total time."""

    uri: str
    failed: dict[Step, TaskError]
    seconds: float


async def probe_store(settings: StoreSettings) -> StoreProbe:
    """Write a 1 kB object where results go, read it, and delete it again; nothing is retried.

    Raises `DependencyMissingError` if there is no such place, or no client for it.
    """
    disk = Disk()
    stores = Stores(settings, disk, Observer())
    try:
        uri = stores.target(f"{_PREFIX}/{secrets.token_hex(8)}")
        began = time.monotonic()
        failed = await _try(stores, await stores.locate(uri))
        return StoreProbe(uri, failed, time.monotonic() - began)
    finally:
        stores.close()
        disk.close()


async def _try(stores: Stores, location: Location) -> dict[Step, TaskError]:
    content = secrets.token_bytes(_SIZE)
    failed: dict[Step, TaskError] = {}

    async def write() -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            await stores.put(location, Path(file.name), _SIZE)

    async def read() -> None:
        info = await stores.head(location)
        if bytes(await stores.get(location, info, 0, info.size)) != content:
            raise IntegrityMismatchError(f"{location.uri}: the object read differs from the object written")

    async def attempt(step: Step, call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except TaskError as error:
            failed[step] = error

    await attempt("write", write)
    if not failed:
        await attempt("read", read)
        await attempt("delete", lambda: stores.delete(location))
    return failed
