"""User's values as plain ones: what a skill returns or sends, as JSON-able dicts, lists, texts and numbers."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import io
from collections import deque
from collections.abc import AsyncIterable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final, cast

import msgspec

from avtomatika_worker.errors import UnsendableValueError

_CANNOT: Final = (TypeError, ValueError, RecursionError, AttributeError)
_TEXTS: Final = {None: "null", True: "true", False: "false"}


def to_plain(value: object) -> Any:
    """Return ``value`` as plain JSON-able values.

    Models, dataclasses and Structs become dicts of their fields (a pydantic model's by their aliases, as in its
    schema), and so does a NamedTuple (inside of something else it is an array, as its schema says); enums their value;
    dates, UUIDs, decimals and paths texts; bytes base64; sets lists; NumPy's numbers and arrays numbers and lists. Keys
    become texts. Raises `UnsendableValueError` naming the path of what is none of these, or contains itself.
    """
    if is_named_tuple(value) and not isinstance(value, type):
        value = cast("Any", value)._asdict()
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_encode)
    except _CANNOT:  # the slow way says where, and knows more kinds of keys
        pass
    try:
        return _walk(value, "$", frozenset())
    except RecursionError:
        raise UnsendableValueError("$", f"{_kind(value)} is nested too deep") from None


def is_named_tuple(value: object) -> bool:
    """Whether ``value`` is a NamedTuple, or its class."""
    return hasattr(value, "_fields") and (
        isinstance(value, tuple) or (isinstance(value, type) and issubclass(value, tuple))
    )


def _encode(value: object) -> Any:
    """Encode what msgspec does not know. Raises TypeError for what nobody knows."""
    if isinstance(value, PurePath | str):  # msgspec takes no subclass of str
        return str(value)
    if isinstance(value, Mapping):
        return dict(cast("Any", value))
    if isinstance(value, deque):
        return list(cast("Any", value))
    dump = getattr(value, "model_dump", None)  # pydantic
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json", by_alias=True)
    if type(value).__module__.partition(".")[0] == "numpy":
        convert = getattr(value, "tolist", None) or getattr(value, "item", None)
        if callable(convert):
            return convert()
    raise TypeError(f"{_kind(value)} is not JSON-able")


def _walk(value: object, path: str, above: frozenset[int]) -> Any:
    """Do in Python what msgspec could not do, and know the path. Raises `UnsendableValueError`."""
    if id(value) in above:
        raise UnsendableValueError(path[:200], f"{_kind(value)} contains itself")
    inside = above | {id(value)}
    if isinstance(value, Mapping):
        fields = cast("Mapping[object, object]", value).items()
        return {(text := _key(key, path)): _walk(item, f"{path}.{text}", inside) for key, item in fields}
    if isinstance(value, list | tuple | set | frozenset | deque):
        items = cast("Iterable[object]", value)
        return [_walk(item, f"{path}[{index}]", inside) for index, item in enumerate(items)]
    named = _fields(value)
    if named is not None:
        return {name: _walk(item, f"{path}.{name}", inside) for name, item in named if item is not msgspec.UNSET}
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_encode)
    except _CANNOT:
        pass
    try:
        inner = value.value if isinstance(value, enum.Enum) else _encode(value)
    except _CANNOT as error:
        why = "" if type(error) is TypeError else f": {error}"[:200]
        raise UnsendableValueError(path, f"{_kind(value)} is not JSON-able{why or _remedy(value)}") from None
    return _walk(inner, path, inside)


def _fields(value: object) -> list[tuple[str, object]] | None:
    """Return the fields of a Struct or dataclass as msgspec would write them, None for anything else."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        tag: list[tuple[str, object]] = [(config.tag_field, config.tag)] if config.tag_field else []
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return tag + [(written, getattr(value, name, msgspec.UNSET)) for written, name in names]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(each.name, getattr(value, each.name, msgspec.UNSET)) for each in dataclasses.fields(value)]
    return None


def _key(key: Any, path: str) -> str:
    """Return a dict's key as a text, as JSON writes it."""
    if isinstance(key, enum.Enum):
        key = key.value
    if key is None or isinstance(key, bool):
        return _TEXTS[key]
    try:
        plain = msgspec.to_builtins(key, enc_hook=_encode)
    except _CANNOT:
        plain = None
    if isinstance(plain, str | int | float):
        return str(plain)
    raise UnsendableValueError(path, f"the key {repr(key)[:100]} ({_kind(key)}) is not JSON-able")


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _remedy(value: object) -> str:
    """Return what to do about a value that is not JSON-able, as the end of a sentence."""
    if isinstance(value, type):
        return f": it is the class {value.__qualname__}; return an object of it"
    if isinstance(value, io.IOBase):
        return ": return its Path, and the file is stored; or what it holds"
    if inspect.isasyncgen(value) or isinstance(value, AsyncIterable):
        return ": collect what it yields, as in [each async for each in it], or send_event each"
    if inspect.isawaitable(value):
        return ": await it"
    if isinstance(value, Iterable):
        return ": make it a list, as in list(it)"
    if callable(value):
        return ": call it, and return what it returns"
    return ": return a dict, a list, a dataclass or a model"
