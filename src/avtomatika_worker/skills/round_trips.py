"""Whether a value that was written as JSON and read again is what it was."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from numbers import Number
from typing import Any

from avtomatika_worker.narrowing import as_any, is_dict
from avtomatika_worker.skills.jsonable import to_plain


def difference(read: object, value: object, path: str = "$") -> str | None:
    """Return where, and how, what was ``read`` is not the ``value`` that was written; None if it is the same.

    Types count: a text is no enum member, a list no tuple. Numbers are the same if they are equal.
    """
    inner, other = _parts(read), _parts(value)
    if type(read) is not type(value):
        same = _are_equal_numbers(read, value)
    elif inner is not None and other is not None:
        if inner.keys() == other.keys():
            found = (difference(item, other[step], path + step) for step, item in inner.items())
            return next((each for each in found if each is not None), None)
        same = False
    else:
        same = _are_equal(read, value)
    return None if same else f"{path} is {value!r:.80}, and would be {read!r:.80}"


def _parts(value: object) -> dict[str, Any] | None:
    """Return what is in a value, by the steps of a path; None for one without parts."""
    if is_dict(value):
        return {f".{key}" if type(key) is str else f"[{key!r:.80}]": item for key, item in value.items()}
    if type(value) in {list, tuple}:
        return {f"[{index}]": item for index, item in enumerate(as_any(value))}
    names = list(_field_names(value))
    return {f".{name}": getattr(value, name, None) for name in names} if names else None


def _field_names(value: object) -> Iterator[str]:
    kind: Any = type(value)
    for fields in ("__dataclass_fields__", "__struct_fields__", "__pydantic_fields__"):
        yield from getattr(kind, fields, ())
    yield from (each.name for each in getattr(kind, "__attrs_attrs__", ()))


def _are_equal_numbers(read: object, value: object) -> bool:
    numbers = isinstance(read, Number) and isinstance(value, Number) and not isinstance(value, enum.Enum)
    return numbers and bool(read == value)


def _are_equal(read: Any, value: Any) -> bool:
    if isinstance(value, float) and value != value:
        return bool(read != read)
    return bool(read == value if isinstance(value, set | frozenset) else to_plain(read) == to_plain(value))
