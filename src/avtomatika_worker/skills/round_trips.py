"""Whether a value that was written as JSON and read again is what it was."""

from __future__ import annotations

import enum
from numbers import Number

from avtomatika_worker.narrowing import as_any, is_dict, is_list, is_tuple
from avtomatika_worker.skills.jsonable import to_plain


def difference(read: object, value: object, path: str = "$") -> str | None:
    """Return where, and how, what was ``read`` is not the ``value`` that was written; None if it is the same.

    Types count: a text is no enum member, a list no tuple. Numbers are the same if they are equal.
    """
    if type(read) is not type(value):
        return None if _are_equal_numbers(read, value) else _described(read, value, path)
    if is_dict(read) and is_dict(value):
        if read.keys() != value.keys():
            return _described(read, value, path)
        found = (difference(item, value[key], f"{path}.{key}") for key, item in read.items())
    elif (is_list(read) and is_list(value)) or (is_tuple(read) and is_tuple(value)):
        if len(read) != len(value):
            return _described(read, value, path)
        pairs = enumerate(zip(as_any(read), as_any(value), strict=True))
        found = (difference(*pair, f"{path}[{index}]") for index, pair in pairs)
    else:
        return None if _are_equal(read, value) else _described(read, value, path)
    return next((each for each in found if each is not None), None)


def _are_equal_numbers(read: object, value: object) -> bool:
    numbers = isinstance(read, Number) and isinstance(value, Number) and not isinstance(value, enum.Enum)
    return numbers and bool(read == value)


def _are_equal(read: object, value: object) -> bool:
    if isinstance(value, float):
        return value == read or (value != value and read != read)
    return bool(read == value) if isinstance(value, set | frozenset) else bool(to_plain(read) == to_plain(value))


def _described(read: object, value: object, path: str) -> str:
    return f"{path} is {value!r:.80}, and would be {read!r:.80}"
