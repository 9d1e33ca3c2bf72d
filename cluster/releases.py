"""The published orchestrators."""

from __future__ import annotations

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


def since(version: str, first: str) -> bool:
    """Return whether a release is ``first`` or a later one."""
    order = list(PROTOCOLS)
    return order.index(version) >= order.index(first)
