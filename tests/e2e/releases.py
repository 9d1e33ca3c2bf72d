"""The published orchestrators that the end-to-end tests run against, and what some of them cannot do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

PROTOCOLS: Final[Mapping[str, str]] = {
    "1.0b21": "1.0b7",
    "1.0b22": "1.0b10",
    "1.0b23": "1.0b10",
    "1.0b24": "1.0b11",
    "1.0b25": "1.0b12",
    "1.0b26": "1.0b13",
    "1.0b27": "1.0b14",
    "1.0b28": "1.0b15",
    "1.0b29": "1.0b16",
    "1.0b30": "1.0b17",
}
"""Every release, the oldest first, and the version of the protocol that it speaks."""

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


def since(version: str, first: str) -> bool:
    """Return whether a release is ``first`` or a later one."""
    order = list(PROTOCOLS)
    return order.index(version) >= order.index(first)
