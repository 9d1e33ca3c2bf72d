"""Whether a value that was written as JSON and read again is what it was."""

from __future__ import annotations

import enum
import marshal
from collections.abc import Iterator
from functools import lru_cache
from numbers import Number
from typing import Any, Final, cast

from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.skills.jsonable import to_plain

_WITHOUT_REFERENCES: Final = 2
"""The last version of marshal's format in which the same object is written in full each time."""

_SEQUENCES: Final = frozenset({list, tuple})
_SCALARS: Final = frozenset({str, int, bool, type(None)})

_Different = tuple[list[str], object, object]
"""The steps of the path, the innermost first; what was read; what was written."""


def difference(read: object, value: object) -> str | None:
    """Return where, and how, what was ``read`` is not the ``value`` that was written; None if it is the same.

    Types count: a text is no enum member, a list no tuple. Numbers are the same if they are equal.
    """
    found = _different(read, value)
    if found is None:
        return None
    steps, inner, other = found
    return f"{''.join(['$', *reversed(steps)])} is {other!r:.80}, and would be {inner!r:.80}"


def are_written_alike(read: Any, value: Any) -> bool:
    """Whether two values are the same in all types and parts; if in doubt, false. Quick, also for large ones.

    All kinds of bytes are one type.
    """
    try:
        return marshal.dumps(read, _WITHOUT_REFERENCES) == marshal.dumps(value, _WITHOUT_REFERENCES)
    except ValueError:  # something in them is of no built-in type
        return False


def _different(read: Any, value: Any) -> _Different | None:
    if type(read) is not type(value):
        return None if _are_equal_numbers(read, value) else ([], read, value)
    if type(value) in _SEQUENCES or is_dict(value):
        return None if are_written_alike(read, value) else _different_inside(read, value)
    names = _field_names(cast("Any", type(value)))
    if not names:
        return None if _are_equal(read, value) else ([], read, value)
    return _first((f".{name}", getattr(read, name, None), getattr(value, name, None)) for name in names)


def _different_inside(read: Any, value: Any) -> _Different | None:
    if not is_dict(value):
        if len(read) != len(value):
            return [], read, value
        return _first((f"[{index}]", *pair) for index, pair in enumerate(zip(read, value, strict=True)))
    inner, other = _by_step(read), _by_step(value)
    if inner.keys() != other.keys():
        return [], read, value
    return _first((step, item, other[step]) for step, item in inner.items())


def _first(pairs: Iterator[tuple[str, object, object]]) -> _Different | None:
    for step, read, value in pairs:
        if (found := _different(read, value)) is not None:
            found[0].append(step)
            return found
    return None


def _by_step(value: dict[Any, Any]) -> dict[str, Any]:
    return {f".{key}" if type(key) is str else f"[{key!r:.80}]": item for key, item in value.items()}


@lru_cache(256)
def _field_names(kind: Any) -> tuple[str, ...]:
    named = [each for fields in _FIELDS for each in getattr(kind, fields, ())]
    return (*named, *(each.name for each in getattr(kind, "__attrs_attrs__", ())))


_FIELDS: Final = ("__dataclass_fields__", "__struct_fields__", "__pydantic_fields__")


def _are_equal_numbers(read: object, value: object) -> bool:
    numbers = isinstance(read, Number) and isinstance(value, Number) and not isinstance(value, enum.Enum)
    return numbers and bool(read == value)


def _are_equal(read: Any, value: Any) -> bool:
    if type(value) in _SCALARS:
        return bool(read == value)
    if isinstance(value, float) and value != value:
        return bool(read != read)
    return bool(read == value if isinstance(value, set | frozenset) else to_plain(read) == to_plain(value))
