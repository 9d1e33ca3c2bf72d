"""``avtomatika_worker.typing`` of the official SDK before 1.0b13: an import of a name says where that is now."""

from __future__ import annotations

_MOVED = "its names are in avtomatika_worker.types (codes of errors, Middleware, CapacityChecker)"


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"avtomatika_worker.typing has no {name}: {_MOVED}")
