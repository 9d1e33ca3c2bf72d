"""Type guards for values of unknown type, such as JSON and users' arguments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any, TypeGuard


def is_dict(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether a value is a dict. Its keys are assumed to be texts, as in JSON."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Return whether a value is a list."""
    return isinstance(value, list)


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    """Return whether a value is a tuple."""
    return isinstance(value, tuple)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Return whether a value is a mapping with any keys."""
    return isinstance(value, Mapping)


def is_collection(value: object) -> TypeGuard[Collection[Any]]:
    """Return whether a value has a length and can be iterated over repeatedly."""
    return isinstance(value, Collection)


def as_any(value: object) -> Any:
    """Return a value for checks at runtime: users' code may break the promise of its annotation."""
    return value


def is_iterator(value: object) -> TypeGuard[Iterator[Any]]:
    """Whether a value is an iterator, a generator for one."""
    return isinstance(value, Iterator)


def is_async_iterator(value: object) -> TypeGuard[AsyncIterator[Any]]:
    """Whether a value is an async iterator."""
    return isinstance(value, AsyncIterator)


def copy_of_json(value: Any) -> Any:
    """Return a value whose dicts and lists are copies, to any depth. Whatever else is in them is the same."""
    if is_dict(value):
        return {key: copy_of_json(each) for key, each in value.items()}
    return [copy_of_json(each) for each in value] if is_list(value) else value
