"""User's values as plain ones: what a skill returns or sends, as JSON-able dicts, lists, texts and numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final, cast

import msgspec

from avtomatika_worker.errors import UnsendableValueError

_CANNOT: Final = (TypeError, ValueError, RecursionError, AttributeError)
_SEARCH_DEPTH: Final = 100


def to_plain(value: object) -> Any:
    """Return ``value`` as plain JSON-able values.

    Models, dataclasses and Structs become dicts of their fields, and so does a NamedTuple (inside of something else it
    is an array, as its schema says); enums their value; dates, UUIDs, decimals and paths texts; bytes base64; sets
    lists; NumPy's numbers and arrays numbers and lists. Keys become texts. Raises `UnsendableValueError` naming the path
    of what is none of these, or contains itself.
    """
    if is_named_tuple(value):
        value = cast("Any", value)._asdict()
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_encode)
    except _CANNOT:
        path, culprit = _culprit(value, "$", 0)
    if culprit is None:
        raise UnsendableValueError(path[:200], "nested without end: does it contain itself?")
    kind = f"{type(culprit).__module__}.{type(culprit).__qualname__}".removeprefix("builtins.")
    raise UnsendableValueError(path, f"{kind} is not JSON-able")


def is_named_tuple(value: object) -> bool:
    """Whether ``value`` is a NamedTuple, or its class."""
    return hasattr(value, "_fields") and (
        isinstance(value, tuple) or (isinstance(value, type) and issubclass(value, tuple))
    )


def _encode(value: object) -> Any:
    """Encode what msgspec does not know. Raises TypeError for what nobody knows."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if isinstance(value, deque):
        return list(cast("deque[Any]", value))
    dump = getattr(value, "model_dump", None)  # pydantic
    if callable(dump):
        return dump(mode="json")
    if type(value).__module__.partition(".")[0] == "numpy":
        convert = getattr(value, "tolist", None) or getattr(value, "item", None)
        if callable(convert):
            return convert()
    raise TypeError(f"{type(value).__name__} is not JSON-able")


def _culprit(value: object, path: str, depth: int) -> tuple[str, object]:
    """Find what cannot be encoded; the path alone when it is nested without end."""
    if depth > _SEARCH_DEPTH:
        return path, None
    for step, item in _items(value):
        try:
            msgspec.to_builtins(item, str_keys=True, enc_hook=_encode)
        except _CANNOT:
            return _culprit(item, path + step, depth + 1)
    return path, value


def _items(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[object, object]", value).items():
            yield f".{key}", item
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for index, item in enumerate(cast("list[object]", value)):
            yield f"[{index}]", item
    elif not isinstance(value, type):
        names = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None) or ()
        for name in cast("tuple[str, ...]", names):
            yield f".{name}", getattr(value, name, None)
