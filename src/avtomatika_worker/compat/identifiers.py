"""Which strings orchestrators accept as ids."""

from __future__ import annotations

from avtomatika_worker.narrowing import as_any
from avtomatika_worker.skills.declaration import IDENTIFIER


def is_valid_identifier(value: str) -> bool:
    """Return whether a string is a valid id: 1 to 128 characters from A-Z, a-z, 0-9, ``_`` and ``-``."""
    return isinstance(as_any(value), str) and bool(IDENTIFIER.fullmatch(value))


def validate_identifier(value: str, name: str = "identifier") -> None:
    """Raise ValueError, which calls the value ``name``, if it is not a valid id."""
    if not is_valid_identifier(value):
        raise ValueError(f"Invalid {name}: {value!r:.200}: it must be 1 to 128 characters from A-Z, a-z, 0-9, _ and -")
