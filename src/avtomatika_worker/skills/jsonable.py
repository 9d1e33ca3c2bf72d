"""Turns users' values, which skills return or send, into JSON-able dicts, lists, texts and numbers."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import io
import marshal
from collections import deque
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final, cast

import msgspec
import orjson

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.narrowing import as_any, is_mapping
from avtomatika_worker.skills.type_hints import is_named_tuple
from avtomatika_worker.skills.validation import said

_CANNOT: Final = (TypeError, ValueError, OverflowError, RecursionError, AttributeError)
_TEXTS: Final = {None: "null", True: "true", False: "false"}
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_DEEPEST: Final = 200
"""Levels of nested containers; no orchestrator accepts more than 100."""
_LONGEST_PATH: Final = 200
_ARRAYS: Final = (list, tuple, set, frozenset, deque)
_WITH_TUPLES: Final = 2
"""The last version of marshal's format in which all tuples begin with the same byte."""
_TUPLE: Final = b"("


def to_plain(value: object) -> Any:
    """Return ``value`` as plain JSON-able values.

    Dataclasses, Structs and attrs objects become dicts of their fields, as does a NamedTuple at the top level
    (elsewhere it is an array, as in its schema); pydantic writes its own values; enums become their values; dates,
    UUIDs, decimals and paths become texts; bytes base64; sets lists; NumPy numbers and arrays numbers and lists. Keys
    become texts. Raises `UnsendableValueError` with the path of any other value, of one that contains itself, or of a
    dict with two keys that become the same text.
    """
    if is_named_tuple(value) and not isinstance(value, type):
        value = as_any(value)._asdict()
    try:
        return _at_once(value)
    except _CANNOT:  # the slow way knows more types, and reports where an unknown one is
        pass
    try:
        return _walk(value, set())
    except _Unsendable as found:
        path = "$" + "".join(reversed(found.path))
        raise UnsendableValueError(path[:_LONGEST_PATH], found.problem) from found.__cause__
    except RecursionError:
        raise UnsendableValueError("$", f"{_kind(value)} is nested too deeply") from None


def _at_once(value: Any) -> Any:
    """Do the work of `_walk` in C for built-in types. Raises one of `_CANNOT` for others, or if in doubt."""
    dumped = marshal.dumps(value, _WITH_TUPLES)  # knows only built-in types, and fails at once for any other
    orjson.dumps(value)  # fails at once for a key that is no text: two may become the same one
    if _TUPLE in dumped:  # msgspec would keep tuples; this turns them into lists
        value = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    return msgspec.to_builtins(value)


class _Unsendable(Exception):  # noqa: N818 - never leaves this module
    """A value that is not JSON-able; on its way up each container adds its step."""

    def __init__(self, problem: str, *path: str) -> None:
        self.problem: str = problem
        self.path: list[str] = [*path]


def _walk(value: object, above: set[int]) -> Any:
    """``above``: the ids of the containers that ``value`` is in. Raises `_Unsendable`."""
    if type(value) in _SCALARS:
        return value
    itself, number = value, id(value)
    if number in above:
        raise _Unsendable(f"{_kind(value)} contains itself")
    if len(above) >= _DEEPEST:
        raise _Unsendable(f"{_kind(value)} is nested too deeply")
    above.add(number)
    try:
        if is_mapping(value):
            return _mapping(value, above)
        if isinstance(value, _ARRAYS):
            return _array(cast("Collection[Any]", value), above)
        return _other(value, above)
    except (_Unsendable, RecursionError):
        raise
    except Exception as error:
        raise _Unsendable(f"{_kind(itself)} cannot be read: {said(error)}") from error
    finally:
        above.discard(number)


def _object(fields: Iterable[tuple[str, Any]], above: set[int]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, item in fields:
        try:
            plain[name] = item if type(item) in _SCALARS else _walk(item, above)
        except _Unsendable as found:
            found.path.append(f".{name}"[:200])
            raise
    return plain


def _mapping(value: Mapping[Any, Any], above: set[int]) -> dict[str, Any]:
    plain = _object(((_key(key), item) for key, item in value.items()), above)
    if len(plain) < len(value):
        keys: dict[str, object] = {}
        for key in value:
            if (text := _key(key)) in keys:
                raise _Unsendable(f"the keys {keys[text]!r:.100} and {key!r:.100} are the same in JSON: {text!r:.100}")
            keys[text] = key
    return plain


def _array(items: Collection[Any], above: set[int]) -> list[Any]:
    if _SCALARS.issuperset(map(type, items)):
        return list(items)
    plain: list[Any] = []
    for index, item in enumerate(items):
        try:
            plain.append(item if type(item) in _SCALARS else _walk(item, above))
        except _Unsendable as found:
            found.path.append(f"[{index}]")
            raise
    return plain


def _other(value: Any, above: set[int]) -> Any:
    """Convert one level of a value that is not a standard container."""
    writer = None if isinstance(value, type) else _pydantic_writer(value)
    if writer is not None:
        try:
            return _walk(writer(value), above)
        except UnsendableValueError as error:
            raise _Unsendable(error.problem, error.path[1:]) from error
    if isinstance(value, msgspec.Struct):
        return _struct(value, above)
    if not isinstance(value, type) and (named := _fields(value)) is not None:
        return _object(named, above)
    if isinstance(value, enum.Enum):
        return _walk(value.value, above)
    try:
        return msgspec.to_builtins(value, str_keys=True)
    except _CANNOT:
        pass
    try:
        inner = _encode(value)
    except _CANNOT as error:
        why = "" if type(error) is TypeError else f": {error}"[:200]
        raise _Unsendable(f"{_kind(value)} is not JSON-able{why or _remedy(value)}") from None
    return _walk(inner, above)


def _pydantic_writer(value: object) -> Callable[[Any], Any] | None:
    """Return the serializer of a pydantic value, or None for any other."""
    kind = type(value)
    serializer = kind.__dict__.get("__pydantic_serializer__")
    if serializer is None:
        if kind.__module__.partition(".")[0] not in _PYDANTIC and not hasattr(kind, "__get_pydantic_core_schema__"):
            return None
        return _by_type(cast("Any", kind))
    from avtomatika_worker.skills import pydantic_engine

    return lambda value: pydantic_engine.written(serializer, value)


_PYDANTIC: Final = frozenset({"pydantic", "pydantic_core"})


@lru_cache(256)
def _by_type(kind: Any) -> Callable[[Any], Any] | None:
    if issubclass(kind, str | PurePath):  # already texts
        return None
    from avtomatika_worker.skills import pydantic_engine

    # A type of the user's may raise anything: then it is written as others are.
    return attempted(lambda: pydantic_engine.PydanticType(kind).write, lambda _: None)


def _struct(value: msgspec.Struct, above: set[int]) -> Any:
    """Write a Struct as msgspec does, but keep the path."""
    config = value.__struct_config__
    names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
    fields = [(written, getattr(value, name, msgspec.UNSET)) for written, name in names]
    if config.omit_defaults:
        infos = msgspec.structs.fields(value)
        fields = [each for each, info in zip(fields, infos, strict=True) if not _is_default(each[1], info)]
    if config.array_like:
        return _array([*([config.tag] if config.tag is not None else []), *(item for _, item in fields)], above)
    tag: list[tuple[str, Any]] = [(config.tag_field, config.tag)] if config.tag_field else []
    return _object(tag + [(name, item) for name, item in fields if item is not msgspec.UNSET], above)


def _is_default(value: Any, info: msgspec.structs.FieldInfo) -> bool:
    if info.default_factory in (list, dict, set):
        return type(value) is info.default_factory and not value
    same_scalar = type(value) in _SCALARS and type(value) is type(info.default) and value == info.default
    return value is info.default or same_scalar


def _fields(value: Any) -> Iterator[tuple[str, Any]] | None:
    """Return the fields with a value of a dataclass or attrs object, or None for anything else."""
    if dataclasses.is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value)]
    elif hasattr(value, "__attrs_attrs__"):
        names = [each.name for each in value.__attrs_attrs__]
    else:
        return None
    return ((name, item) for name in names if (item := getattr(value, name, msgspec.UNSET)) is not msgspec.UNSET)


def _encode(value: Any) -> Any:
    """Encode a type that msgspec does not know. Raises TypeError for an unknown one."""
    if isinstance(value, PurePath):
        return str(value)
    for kind, content in _CONTENT.items():
        if isinstance(value, kind):
            return content(value)
    if type(value).__module__.partition(".")[0] == "numpy":
        convert = getattr(value, "tolist", None) or getattr(value, "item", None)
        if callable(convert):
            return _of_numpy(value, convert)
    raise TypeError(f"{_kind(value)} is not JSON-able")


_CONTENT: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}
"""How to read what a subclass of one of these holds, whatever it makes of ``str()`` or ``int()`` itself."""
_TIMES: Final = ("M", "m")
"""NumPy's kinds of dates and durations."""


def _of_numpy(value: Any, convert: Callable[[], Any]) -> Any:
    """Return NumPy's value as Python's. Raises ValueError for a number or a time that Python has no type for."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in _TIMES:
        return _times(value, f"{kind}8[us]")
    found = convert()
    if type(found) is type(value):  # a longdouble
        raise ValueError("JSON's numbers are shorter: convert it, as in float(x)")
    return found


def _times(value: Any, exact: str) -> Any:
    """Return NumPy's dates or durations as Python's: NumPy makes integers of those in nanoseconds."""
    if value.dtype.str.endswith(_FINER):
        rounded = value.astype(exact)
        if ((rounded.astype(value.dtype) == value) | (value != value)).all():  # or NaT
            value = rounded
    if any(isinstance(each, int) for each in value.reshape(-1).tolist()):
        raise ValueError(f"{value.dtype} cannot be written exactly: convert it, as in x.astype({exact!r})")
    return value.tolist()


_FINER: Final = ("ns]", "ps]", "fs]", "as]")
"""Ends of the names of types that are finer than microseconds."""


_NO_KEYS: Final = (Mapping, tuple)


def _key(key: object) -> str:
    """Return a dict's key as JSON text."""
    if type(key) is str:
        return key
    if isinstance(key, enum.Enum):
        key = key.value
    if key is None or isinstance(key, bool):
        return _TEXTS[key]
    try:
        plain = None if issubclass(type(key), _NO_KEYS) else _walk(key, set())
    except (_Unsendable, RecursionError):
        plain = None
    if isinstance(plain, str | int | float):
        return str(plain)
    raise _Unsendable(f"the key {repr(key)[:100]} ({_kind(key)}) is not JSON-able")


def _kind(value: object) -> str:
    kind: type = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _remedy(value: object) -> str:
    """Return advice for a value that is not JSON-able, as the end of a sentence."""
    if isinstance(value, BaseException):
        return ": raise it"
    if isinstance(value, type):
        return f": it is the class {value.__qualname__}; return an instance of it"
    if isinstance(value, io.IOBase):
        return ": return its Path, to have the file stored, or its content"
    if inspect.isasyncgen(value) or isinstance(value, AsyncIterable):
        return ": collect its items, as in [each async for each in it], or send_event each"
    if inspect.isawaitable(value):
        return ": await it"
    if isinstance(value, Iterable):
        return ": turn it into a list, as in list(it)"
    if callable(value):
        return ": call it, and return its result"
    return ": return a dict, a list, a dataclass or a model"
