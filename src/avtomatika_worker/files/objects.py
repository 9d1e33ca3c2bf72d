"""Objects in stores, as the rest of the package sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from avtomatika_worker.files.permit import Permit
from avtomatika_worker.files.progress import Notify
from avtomatika_worker.protocol.messages import FileMetadata


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store tells of an object: bytes, and an etag that changes with them."""

    size: int
    etag: str | None


Expect = Callable[[ObjectInfo], None]
"""Raises when an object is not what it should be."""


def expect_anything(_info: ObjectInfo) -> None:
    """Take every object."""


class Objects(Protocol):
    """Moves files from and to object stores. Its methods raise a `TaskError` that says what cannot be done."""

    @property
    def stores_results(self) -> bool:
        """Whether there is a place for files of results."""
        ...

    async def fetch(
        self,
        uri: str,
        directory: Path,
        name: str | None,
        notify: Notify,
        permit: Permit,
        expect: Expect = expect_anything,
    ) -> Path:
        """Download an object, or a prefix as a directory, into ``directory``, as ``name``; return its path."""
        ...

    async def store(self, files: Mapping[str, Path], uri: str, notify: Notify, permit: Permit) -> FileMetadata:
        """Upload files, named relative to ``uri``, and return what is stored."""
        ...

    def target(self, key: str) -> str:
        """Return the URI of ``key`` in the store for results."""
        ...


def plain_etag(etag: str | None) -> str | None:
    """Return an etag as results tell it: without its quotes."""
    return etag.removeprefix("W/").strip('"') if etag else None
