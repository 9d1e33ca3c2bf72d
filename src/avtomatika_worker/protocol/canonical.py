"""The signed canonical form, and the values that no orchestrator can digest (RXON.md, "Signing").

`canonical_bytes` does both in one walk: it removes and converts what the dialect does, and finds values that would be
answered with HTTP 500 every time, so that they never leave the worker. The bytes it returns are also the bytes sent: an
orchestrator that canonicalizes them again gets the same bytes.
"""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec
import orjson

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.narrowing import as_any, is_dict, is_list
from avtomatika_worker.protocol.dialects import Dialect

_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1
_LARGE_FLOAT: Final = 1e16  # from here on, orjson releases differ: 1e16 or 1e+16
_AS_THEY_ARE: Final = frozenset({str, bool, orjson.Fragment})  # fragments: `canonical_data` has written them
_TEXT_OR_BOOL: Final = (str, bool)  # inline, ``str | bool`` would be created again for every value
_ARRAYS: Final = (list, tuple)
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_EMBEDDED: Final = b'{"data":'
DATA_DEPTH: Final = 1
"""The depth of a result's data below the root."""

# Types that orjson writes natively but values must not have (dataclasses, dates, subclasses) are refused.
_STRICT: Final = (
    orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS
) | orjson.OPT_PASSTHROUGH_DATETIME
_CANNOT: Final = (orjson.JSONEncodeError, msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)
_INTEGRAL: Final = re.compile(rb"\.0(?=[,\]}])")
"""Matches the end of a number without a fraction, or within a text."""
_MINUS_ZERO: Final = msgspec.msgpack.encode(-0.0)
"""Written as 0, not as -0."""
_NULL: Final = re.compile(rb"null")
_HEAP_TYPE: Final = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: instances of other types do not count as references."""


def canonical_bytes(message: dict[str, Any], dialect: Dialect) -> bytes:
    """Return the canonical JSON of ``message`` in ``dialect``.

    ``message`` holds plain values only (dict with str keys, list, str, int, float, bool, None) and is not changed.
    Raises `UnsendableValueError` with the path of a value that cannot be sent.
    """
    embedded = orjson.Fragment in map(type, message.values())  # then the rest is short, and walking it is quick
    if not embedded and (at_once := canonical_at_once(message, dialect)) is not None:
        return at_once
    try:
        cleaned = _clean_object(message, dialect, 0)
    except _Unsendable as found:
        raise UnsendableValueError(_json_path(found.path[::-1]), found.problem) from None
    try:
        return orjson.dumps(cleaned, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise UnsendableValueError(*_culprit(cleaned, ("$",)) or ("$", str(error))) from None


def canonical_at_once(value: object, dialect: Dialect, depth: int = 0) -> bytes | None:
    """Return the canonical JSON of a value of built-in types, ``depth`` levels below the root.

    Returns None if that needs a walk through the value in Python: for a null, a very large number, or a value that
    cannot be sent. Tuples and enums are written as their content, UUIDs as texts.

    Why this exists: every result goes through here, and a walk in Python takes 16 times what orjson does (571 kB: 14 ms
    and 0.87). orjson refuses all that must not be sent but three things, and each of them is found without a walk:

    - what is nested deeper than the orchestrator accepts, by `_shallow`: 0.06 of what orjson takes. To pick brackets
      out of the bytes takes 0.3, and those in texts, which do not count, would still be among them;
    - nulls, NaN (which orjson writes as null) and floats of 1e16 and more, in the bytes: 0.2;
    - an `orjson.Fragment`, which orjson copies as it is, whatever is in it: there is none while nothing refers to the
      class but those who did when this module was imported, so that a look at its count of references mostly does.
      MessagePack's encoder, which refuses it, takes 0.7.
    """
    try:
        if sys.getrefcount(orjson.Fragment) > _REFERENCES:  # there is a Fragment somewhere, which may contain anything
            msgspec.msgpack.encode(value)  # refuses it
        body = _shallow(value, dialect.max_nesting - depth)
        if _NULL.search(body) or (b"+" in body and b"e+" in body):  # a null, NaN, 1e16; or a text
            return None
        return _without_fractions(value, body) if dialect.integral_floats and _INTEGRAL.search(body) else body
    except _CANNOT:
        return None


def _without_fractions(value: object, body: bytes) -> bytes | None:
    """Return a body with 1 instead of 1.0, or None if it has texts that look like numbers, or a -0.0."""
    if b"\\" in body:  # a quote may belong to a text; but in MessagePack, texts are the same and numbers are not
        packed = msgspec.msgpack.encode(value)
        return None if _MINUS_ZERO in packed or _INTEGRAL.search(packed) else _INTEGRAL.sub(b"", body)
    pieces = _INTEGRAL.split(body)
    if any(piece.count(b'"') & 1 or piece.endswith(b"-0") for piece in pieces):  # it ends inside a text
        return None
    return b"".join(pieces)


def canonical_data(data: dict[str, Any], dialect: Dialect) -> bytes:
    """Return the canonical JSON of plain values to embed in a message as its ``data``.

    Raises `UnsendableValueError`.
    """
    return canonical_bytes({"data": data}, dialect)[len(_EMBEDDED) : -1]


def _shallow(value: object, room: int) -> bytes:
    """Return the JSON of a value with at most ``room`` nested containers. Raises one of `_CANNOT` for others.

    orjson has its own, much higher limit: the value is written deeper by the difference, into the innermost of so many
    lists, whose brackets are then cut off. They are kept: to make 224 of them takes 9 µs, as long as to write 5 kB, and
    to write them 2 µs, which a dict without any container is spared.
    """
    if (
        room > 0
        and type(as_any(value)) is dict
        and _SCALARS.issuperset(map(type, cast("dict[str, Any]", value).values()))
    ):
        return orjson.dumps(value, option=_STRICT)
    more = _orjson_depth() - room
    outer, inner = _nest(more)
    inner[0] = value
    try:
        body = orjson.dumps(outer, option=_STRICT)
        if inner[0] is not value:
            raise ValueError("another thread or a finalizer interfered")
    finally:
        inner[0] = None
    return body[more:-more]


@functools.cache
def _nest(depth: int) -> tuple[list[Any], list[Any]]:
    """Return the outermost and the innermost of nested lists, made once."""
    if depth < 1:
        raise ValueError("orjson accepts less nesting than the orchestrator")
    inner: list[Any] = [None]
    outer = inner
    for _ in range(depth - 1):
        outer = [outer]
    return outer, inner


_REFERENCES: Final = sys.getrefcount(orjson.Fragment) if orjson.Fragment.__flags__ & _HEAP_TYPE else -1
"""References to orjson's Fragment class, without those held by instances."""


@functools.cache
def _orjson_depth() -> int:
    """Return how many nested containers orjson accepts; -1 for a release without a limit."""
    value: object = 0
    for depth in range(1_000):
        value = [value]
        try:
            orjson.dumps(value)
        except orjson.JSONEncodeError:
            return depth
    return -1


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
        if shallow and (type(item) in _AS_THEY_ARE or (type(item) is int and _MIN_INT <= item <= _MAX_INT)):
            result[key] = item
            continue
        try:
            result[key] = _float(item, dialect) if shallow and type(item) is float else _clean(item, dialect, inner)
        except _Unsendable as found:
            found.path.append(key)
            raise
    return result


def _clean_array(value: list[Any], dialect: Dialect, depth: int) -> list[Any]:
    inner = depth + 1
    index = 0
    result: list[Any] = []
    try:
        for index, item in enumerate(value):  # noqa: B007 - reported if an item cannot be sent
            if item is not None or dialect.array_nulls_kept:
                result.append(_clean(item, dialect, inner))
    except _Unsendable as found:
        found.path.append(index)
        raise
    return result


def _clean(value: Any, dialect: Dialect, depth: int) -> Any:
    """Return the signed form of ``value``, which is ``depth`` levels below the root."""
    if depth > dialect.max_nesting:
        limit = f"orchestrators of version {dialect.version} accept {dialect.max_nesting} levels"
        raise _Unsendable(f"nested too deeply: {limit}")
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
    raise _Unsendable(f"the integer {_short(value)} does not fit in 64 bits")


def _float(value: float, dialect: Dialect) -> float | int:
    if not math.isfinite(value):
        raise _Unsendable(f"{value} does not exist in JSON")
    if not value.is_integer():
        return value
    if abs(value) >= _LARGE_FLOAT or dialect.integral_floats:
        integer = int(value)
        if _MIN_INT <= integer <= _MAX_INT:
            return integer
        raise _Unsendable(f"the number {value!r} has no fraction and does not fit in 64 bits")
    return value


def _culprit(value: object, path: _Path) -> tuple[str, str] | None:
    """Find what orjson could not write in a cleaned value: a lone surrogate, or a key that is not a string."""
    if is_dict(value):
        for key, item in value.items():
            if not isinstance(as_any(key), str):
                return _json_path(path[1:]), f"the key {_short(key)} is not a string"
            if not _is_unicode(key):
                return _json_path(path[1:]), f"the key {key!a:.80} is not valid Unicode (a lone surrogate)"
            if found := _culprit(item, (*path, key)):
                return found
    elif is_list(value):
        for index, item in enumerate(value):
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
    """Return a value for a message; an integer of thousands of digits is not worth printing (nor allowed)."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"of {value.bit_length()} bits"
    return f"{value!r:.80}"


def _json_path(path: Sequence[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
