"""Reading values whose type nobody promised."""

from __future__ import annotations

import math
from typing import Any, cast


def as_object(value: object) -> dict[str, Any]:
    """Return ``value`` when it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_texts(value: object) -> tuple[str, ...]:
    """Return the strings of a JSON array; anything else counts as absent."""
    return (
        tuple(item for item in cast("list[object]", value) if isinstance(item, str)) if isinstance(value, list) else ()
    )


def as_text(value: object) -> str | None:
    """Return ``value`` when it is a string."""
    return value if isinstance(value, str) else None


def as_number(value: object) -> float | None:
    """Return ``value`` as a float when it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
