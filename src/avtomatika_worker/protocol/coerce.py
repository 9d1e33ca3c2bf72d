"""Reads values of unknown type."""

from __future__ import annotations

import math
from typing import Any

from avtomatika_worker.narrowing import is_dict, is_list


def as_object(value: object) -> dict[str, Any]:
    """Return ``value`` if it is a JSON object, otherwise an empty one."""
    return value if is_dict(value) else {}


def as_texts(value: object) -> tuple[str, ...]:
    """Return the strings of a JSON array; anything else counts as absent."""
    return tuple(item for item in value if isinstance(item, str)) if is_list(value) else ()


def as_text(value: object) -> str | None:
    """Return ``value`` if it is a string, otherwise None."""
    return value if isinstance(value, str) else None


def as_number(value: object) -> float | None:
    """Return ``value`` as a float if it is a finite number, otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
