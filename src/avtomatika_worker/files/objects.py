"""Objects in stores, as seen by the rest of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from avtomatika_worker.files.permit import Permit
from avtomatika_worker.files.progress import Notify
from avtomatika_worker.protocol.messages import FileMetadata


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A store's facts about an object: its size in bytes, and an etag that changes with its content.

    ``modified``: when it was written, in Unix seconds by the store's clock.
    """

    size: int
    etag: str | None
    modified: float = field(default=0.0, compare=False)


Expect = Callable[[ObjectInfo], None]
"""Raises if an object is not the expected one."""


def expect_anything(_info: ObjectInfo) -> None:
    """Accept every object."""


class Objects(Protocol):
    """Moves files from and to object stores. Its methods raise a `TaskError` that says what failed."""

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
        """Upload files, named relative to ``uri``, and return the stored objects."""
        ...

    def target(self, key: str) -> str:
        """Return the URI of ``key`` in the store for results."""
        ...


def plain_etag(etag: str | None) -> str | None:
    """Return an etag for a result: without its quotes."""
    return etag.removeprefix("W/").strip('"') if etag else None
