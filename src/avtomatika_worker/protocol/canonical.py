"""The canonical form that is signed, and the values that no orchestrator can digest (RXON.md, "Signing").

`canonical_bytes` does both in one walk: it removes and converts what the dialect removes and converts, and finds what
would be answered with HTTP 500 for ever, so that such a value never leaves the worker. The bytes it returns are also
the bytes that are sent: an orchestrator which canonicalises them again finds them unchanged.
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

import orjson

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.protocol.dialects import Dialect

_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1
_LARGE_FLOAT: Final = 1e16  # from here on orjson releases differ: 1e16 or 1e+16
_SCALARS: Final = frozenset({str, bool})


def canonical_bytes(message: dict[str, Any], dialect: Dialect) -> bytes:
    """Return the canonical JSON of ``message`` in ``dialect``.

    ``message`` holds plain values only (dict with str keys, list, str, int, float, bool, None) and is not changed.
    Raises `UnsendableValueError` naming the path of a value that cannot be sent.
    """
    cleaned = _clean_object(message, dialect, 0, ())
    try:
        return orjson.dumps(cleaned, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise UnsendableValueError(*_culprit(cleaned, ("$",)) or ("$", str(error))) from None


_Path = tuple[str | int, ...]


def _clean_object(value: dict[str, Any], dialect: Dialect, depth: int, path: _Path) -> dict[str, Any]:
    """Return ``value`` without nulls, cleaned below; the depth of its members is ``depth + 1``."""
    inner = depth + 1
    result: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            continue
        if type(item) in _SCALARS and inner <= dialect.max_nesting:
            result[key] = item
        else:
            result[key] = _clean(item, dialect, inner, (*path, key))
    return result


def _clean_array(value: list[Any], dialect: Dialect, depth: int, path: _Path) -> list[Any]:
    inner = depth + 1
    if dialect.array_nulls_kept:
        return [_clean(item, dialect, inner, (*path, index)) for index, item in enumerate(value)]
    return [_clean(item, dialect, inner, (*path, index)) for index, item in enumerate(value) if item is not None]


def _clean(value: Any, dialect: Dialect, depth: int, path: _Path) -> Any:
    """Return what is signed in place of ``value``, which stands ``depth`` levels below the root."""
    if depth > dialect.max_nesting:
        problem = f"nested too deep: orchestrators of version {dialect.version} take {dialect.max_nesting} levels"
        raise UnsendableValueError(_json_path(path), problem)
    match value:
        case None | bool() | str():
            return value
        case dict():
            return _clean_object(cast("dict[str, Any]", value), dialect, depth, path)
        case list() | tuple():
            return _clean_array(cast("list[Any]", value), dialect, depth, path)
        case int():
            return _integer(value, path)
        case float():
            return _float(value, dialect, path)
        case _:
            raise UnsendableValueError(_json_path(path), f"{type(value).__name__} is not a JSON value")


def _integer(value: int, path: _Path) -> int:
    if _MIN_INT <= value <= _MAX_INT:
        return value
    raise UnsendableValueError(_json_path(path), f"the integer {_short(value)} does not fit into 64 bits")


def _float(value: float, dialect: Dialect, path: _Path) -> float | int:
    if not math.isfinite(value):
        raise UnsendableValueError(_json_path(path), f"{value} does not exist in JSON")
    if not value.is_integer():
        return value
    if abs(value) >= _LARGE_FLOAT or dialect.integral_floats:
        integer = int(value)
        if _MIN_INT <= integer <= _MAX_INT:
            return integer
        raise UnsendableValueError(
            _json_path(path), f"the number {value!r} has no fraction and does not fit into 64 bits"
        )
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


def _json_path(path: _Path) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
