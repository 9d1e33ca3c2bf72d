"""Blobs in an object store, where no orchestrator deletes them (RXON.md, Behaviour 16) and no task may read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from avtomatika_worker.checkpoints.blobs import Blob, BlobGoneError
from avtomatika_worker.errors import InvalidInputError
from avtomatika_worker.files.concurrency import side_by_side
from avtomatika_worker.files.sources import OWN
from avtomatika_worker.files.transfers import Transfers

_AT_ONCE: Final = 8


class ObjectBlobs:
    """Blobs below ``avtomatika-checkpoints/`` in the store for results."""

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers

    @property
    def place(self) -> str:
        """The prefix."""
        return self._transfers.target(f"{OWN}/")

    @property
    def is_shared(self) -> bool:
        """Whether many machines use it: they do."""
        return True

    async def put(self, name: str, source: Path) -> None:
        """Upload a file: stores show an object once it is whole."""
        await self._transfers.put_own(source, self._uri(name))

    async def get(self, name: str, target: Path) -> None:
        """Download an object."""
        try:
            await self._transfers.get_own(self._uri(name), target)
        except InvalidInputError:
            raise BlobGoneError(name) from None

    async def list(self, prefix: str) -> dict[str, Blob]:
        """Return all objects under ``prefix``."""
        start = f"{prefix}/" if prefix else ""
        found = await self._transfers.list_own(self._uri(start))
        return {f"{start}{name}": Blob(info.size, info.modified) for name, info in found.items()}

    async def remove(self, names: Iterable[str]) -> None:
        """Delete objects."""

        async def delete(name: str) -> None:
            await self._transfers.delete_own(self._uri(name))

        listed = list(names)
        await side_by_side(delete, listed, at_once=min(len(listed), _AT_ONCE))

    def _uri(self, name: str) -> str:
        return self._transfers.target(f"{OWN}/{name}")
