"""Observes calls to object stores. This observer does nothing; see monitoring.storage_metrics."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

from avtomatika_worker.files.location import Location

_NOTHING: Final = nullcontext()


class Observer:
    """Called on the main loop."""

    def operation(self, name: str, location: Location) -> AbstractContextManager[None]:
        """Wrap one call, ``head``, ``list``, ``get``, ``put`` or ``delete``; an exception is its failure."""
        del name, location
        return _NOTHING

    def transfer(self) -> AbstractContextManager[None]:
        """Wrap one transfer: an object, or a tree of them."""
        return _NOTHING

    def moved(self, name: str, size: int) -> None:
        """Record the bytes moved by a ``get`` or ``put``."""
