"""What a value of no known type is, in a form that type checkers follow: JSON comes like that, and what users pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeGuard


def is_dict(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a dict. Its keys are taken for texts, as those of JSON are."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value is a list."""
    return isinstance(value, list)


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    """Whether a value is a tuple."""
    return isinstance(value, tuple)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether a value is a mapping, of any keys."""
    return isinstance(value, Mapping)


def is_collection(value: object) -> TypeGuard[Collection[Any]]:
    """Whether a value can be iterated over any number of times, and has a length."""
    return isinstance(value, Collection)


def as_any(value: object) -> Any:
    """Return a value whose type is looked at while it runs: what its annotation promises, its author may not keep."""
    return value
