"""The published orchestrators that the end-to-end tests run against."""

from __future__ import annotations

import os
from typing import Final

from cluster.releases import PROTOCOLS, since

__all__ = ["DEFAULT", "PROTOCOLS", "VARIABLE", "chosen", "since"]

DEFAULT: Final = ("1.0b21", "1.0b30")
VARIABLE: Final = "AVTOMATIKA_E2E_RELEASES"


def chosen() -> tuple[str, ...]:
    """Return the releases to test: those that ``AVTOMATIKA_E2E_RELEASES`` names, "all", or the oldest and the newest.

    Raises ValueError for a name that is none.
    """
    requested = os.environ.get(VARIABLE, "").strip()
    if not requested:
        return DEFAULT
    if requested == "all":
        return tuple(PROTOCOLS)
    names = tuple(name.strip() for name in requested.split(","))
    if unknown := [name for name in names if name not in PROTOCOLS]:
        raise ValueError(f"{VARIABLE}={requested}: {', '.join(unknown)} is none of {', '.join(PROTOCOLS)}, nor 'all'")
    return names
