"""What is told of calls to object stores while they happen. This one listens to nothing; see services.storage_watch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

from avtomatika_worker.files.location import Location

_NOTHING: Final = nullcontext()


class Observer:
    """Called on the main loop."""

    def operation(self, name: str, location: Location) -> AbstractContextManager[None]:
        """Go around one call, ``head``, ``list``, ``get``, ``put`` or ``delete``; what it raises is its failure."""
        del name, location
        return _NOTHING

    def transfer(self) -> AbstractContextManager[None]:
        """Go around one transfer: an object, or a tree of them."""
        return _NOTHING

    def moved(self, name: str, size: int) -> None:
        """Take note of bytes that a ``get`` or ``put`` has moved."""
