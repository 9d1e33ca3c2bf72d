"""Which texts orchestrators take as ids."""

from __future__ import annotations

from avtomatika_worker.narrowing import as_any
from avtomatika_worker.skills.declaration import IDENTIFIER


def is_valid_identifier(value: str) -> bool:
    """Return whether a text may be an id: 1 to 128 characters out of A-Z, a-z, 0-9, ``_`` and ``-``."""
    return isinstance(as_any(value), str) and bool(IDENTIFIER.fullmatch(value))


def validate_identifier(value: str, name: str = "identifier") -> None:
    """Raise ValueError, which calls the text ``name``, for one that may be no id."""
    if not is_valid_identifier(value):
        raise ValueError(
            f"Invalid {name}: {value!r:.200}: it must be 1 to 128 characters out of A-Z, a-z, 0-9, _ and -"
        )
