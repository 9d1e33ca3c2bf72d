"""The canonical form that is signed, and the values that no orchestrator can digest (RXON.md, "Signing").

`canonical_bytes` does both in one walk: it removes and converts what the dialect removes and converts, and finds what
would be answered with HTTP 500 for ever, so that such a value never leaves the worker. The bytes it returns are also
the bytes that are sent: an orchestrator which canonicalises them again finds them unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import msgspec
import orjson

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.protocol.dialects import Dialect

_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1
_LARGE_FLOAT: Final = 1e16  # from here on orjson releases differ: 1e16 or 1e+16
_SCALARS: Final = frozenset({str, bool})
_TEXT_OR_BOOL: Final = (str, bool)  # written out, ``str | bool`` is made anew for every value
_ARRAYS: Final = (list, tuple)
_CONTAINERS: Final = (dict, list, tuple)
_LARGE_NUMBER: Final = re.compile(rb"\xcb[\x43-\x7f\xc3-\xff]")
"""In MessagePack: a float of 2**49 or more, an infinity, or NaN. Other bytes may look like one."""
_CANNOT_ENCODE: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


def canonical_bytes(message: dict[str, Any], dialect: Dialect) -> bytes:
    """Return the canonical JSON of ``message`` in ``dialect``.

    ``message`` holds plain values only (dict with str keys, list, str, int, float, bool, None) and is not changed.
    Raises `UnsendableValueError` naming the path of a value that cannot be sent.
    """
    try:
        cleaned = _clean_object(message, dialect, 0)
    except _Unsendable as found:
        raise UnsendableValueError(_json_path(found.path[::-1]), found.problem) from None
    try:
        return orjson.dumps(cleaned, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise UnsendableValueError(*_culprit(cleaned, ("$",)) or ("$", str(error))) from None


def is_surely_sendable(message: object, parts: Iterable[object], dialect: Dialect, depth: int) -> bool:
    """Whether nothing in ``message`` keeps it from being sent, as far as that can be found out at once.

    False says nothing: `canonical_bytes` knows. Users' values are in the ``parts``, at most ``depth`` levels below the
    root.
    """
    try:
        body = msgspec.msgpack.encode(message)  # takes no lone surrogates, and no integers beyond 64 bits
    except _CANNOT_ENCODE:
        return False
    if b"\xcb" in body and _LARGE_NUMBER.search(body):
        return False
    level: list[Any] = [each for each in parts if isinstance(each, _CONTAINERS)]
    for _ in range(dialect.max_nesting - depth):
        level = [each for container in level for each in _members(container) if isinstance(each, _CONTAINERS)]
        if not level:
            return True
    return False


def _members(container: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", container).values() if isinstance(container, dict) else container


_Path = tuple[str | int, ...]


class _Unsendable(Exception):  # noqa: N818 - never leaves this module
    """A value that cannot be sent; on its way up each container adds its key, so ``path`` ends at the root."""

    def __init__(self, problem: str) -> None:
        self.problem: str = problem
        self.path: list[str | int] = []


def _clean_object(value: dict[str, Any], dialect: Dialect, depth: int) -> dict[str, Any]:
    """Return ``value`` without nulls, cleaned below; the depth of its members is ``depth + 1``."""
    inner = depth + 1
    shallow = inner <= dialect.max_nesting
    result: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            continue
        if type(item) in _SCALARS and shallow:
            result[key] = item
            continue
        try:
            result[key] = _clean(item, dialect, inner)
        except _Unsendable as found:
            found.path.append(key)
            raise
    return result


def _clean_array(value: list[Any], dialect: Dialect, depth: int) -> list[Any]:
    inner = depth + 1
    index = 0
    result: list[Any] = []
    try:
        for index, item in enumerate(value):  # noqa: B007 - told when an item cannot be sent
            if item is not None or dialect.array_nulls_kept:
                result.append(_clean(item, dialect, inner))
    except _Unsendable as found:
        found.path.append(index)
        raise
    return result


def _clean(value: Any, dialect: Dialect, depth: int) -> Any:
    """Return what is signed in place of ``value``, which stands ``depth`` levels below the root."""
    if depth > dialect.max_nesting:
        limit = f"orchestrators of version {dialect.version} take {dialect.max_nesting} levels"
        raise _Unsendable(f"nested too deep: {limit}")
    if isinstance(value, dict):
        return _clean_object(cast("dict[str, Any]", value), dialect, depth)
    if value is None or isinstance(value, _TEXT_OR_BOOL):
        return value
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _float(value, dialect)
    if isinstance(value, _ARRAYS):
        return _clean_array(cast("list[Any]", value), dialect, depth)
    raise _Unsendable(f"{type(value).__name__} is not a JSON value")


def _integer(value: int) -> int:
    if _MIN_INT <= value <= _MAX_INT:
        return value
    raise _Unsendable(f"the integer {_short(value)} does not fit into 64 bits")


def _float(value: float, dialect: Dialect) -> float | int:
    if not math.isfinite(value):
        raise _Unsendable(f"{value} does not exist in JSON")
    if not value.is_integer():
        return value
    if abs(value) >= _LARGE_FLOAT or dialect.integral_floats:
        integer = int(value)
        if _MIN_INT <= integer <= _MAX_INT:
            return integer
        raise _Unsendable(f"the number {value!r} has no fraction and does not fit into 64 bits")
    return value


def _culprit(value: object, path: _Path) -> tuple[str, str] | None:
    """Find what orjson could not write in a cleaned value: a lone surrogate, or a key that is not a string."""
    if isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            if not isinstance(key, str):
                return _json_path(path[1:]), f"the key {_short(key)} is not a string"
            if not _is_unicode(key):
                return _json_path(path[1:]), f"the key {key!a:.80} is not valid Unicode (a lone surrogate)"
            if found := _culprit(item, (*path, key)):
                return found
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            if found := _culprit(item, (*path, index)):
                return found
    elif isinstance(value, str) and not _is_unicode(value):
        return _json_path(path[1:]), "the text is not valid Unicode (a lone surrogate)"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    """Write a value for a message; an integer of thousands of digits is not worth printing (nor allowed)."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"of {value.bit_length()} bits"
    return f"{value!r:.80}"


def _json_path(path: Sequence[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
