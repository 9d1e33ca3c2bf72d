"""Builds objects with their own constructors.

msgspec makes objects without calling their constructors: fields with their default are not set on a dataclass,
``init=False`` is unknown, ``InitVar`` is not supported. So it converts into mirrors instead: Structs with the same
fields, from which the objects are then built from the inside out.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

import msgspec

from avtomatika_worker.errors import TaskError
from avtomatika_worker.skills.arrays import array_type, is_array
from avtomatika_worker.skills.records import Field, Record, record_of
from avtomatika_worker.skills.type_hints import MISSING, admits_none, list_instead, name_of, stands_for, union_of
from avtomatika_worker.skills.validation import InvalidValue, Problem, json_path, said, shorten

WriteDefault = Callable[[Any, Any], Any]
"""Takes a default and the mirror of its type; returns it as JSON, or `MISSING` if it cannot be announced."""


class _Absent:
    """A field that was not sent."""


_ABSENT: Final = _Absent()
_SETS: Final = frozenset({set, frozenset})
_ARRAYS: Final = frozenset({list, tuple, set, frozenset})
_KEYS: Final = frozenset(
    {str, int, float, bytes, decimal.Decimal, uuid.UUID, dt.datetime, dt.date, dt.time, dt.timedelta, Any, object}
)
"""The types msgspec supports as keys of objects; others it would refuse, or silently leave as texts."""


def _absent() -> _Absent:
    return _ABSENT


class Mirrors:
    """The mirrors of one type, and the way back."""

    def __init__(self, *, output: bool = False, lenient: bool = False) -> None:
        """``lenient``: whether msgspec leaves to the schema's validator what it checks badly, see `checks_badly`."""
        self._output = output
        self._lenient = lenient
        self._known: list[tuple[Any, Any]] = []
        self._records: dict[type, tuple[Record, tuple[bool, ...]]] = {}
        self._open: list[Any] = []
        self._keys_may_meet = False
        """Whether there are keys that are not texts: two texts may be one of them."""

    def of(self, annotation: Any) -> Any:
        """Return the type with a mirror for each class with fields. Raises TypeError, NameError."""
        for known, mirror in self._known:
            if known is annotation or known == annotation:
                return mirror
        if is_array(annotation):
            return Annotated[annotation, msgspec.Meta(extra_json_schema=array_type(annotation).schema)]
        record = record_of(annotation, output=self._output)
        if record is not None:
            return self.of_record(record, annotation)
        if annotation in self._open:  # an alias that refers to itself
            return annotation
        self._open.append(annotation)
        try:
            return self._rewritten(annotation)
        finally:
            self._open.pop()

    def of_record(self, record: Record, annotation: Any = _ABSENT) -> type:
        """Return the mirror of a record."""
        optional = [not each.required or self._may_be_absent(record, each) for each in record.fields]
        fields: list[tuple[str, Any, Any]] = [
            (f"f{index}", Any, msgspec.field(name=each.written, **({"default_factory": _absent} if absent else {})))
            for index, (each, absent) in enumerate(zip(record.fields, optional, strict=True))
        ]
        mirror = msgspec.defstruct(
            record.name,
            fields,
            namespace={"__qualname__": self._own_name(record), "__doc__": record.doc},
            module=record.module,
            frozen=True,
            kw_only=True,
            array_like=record.array,
            forbid_unknown_fields=record.closed,
            **record.tag,
        )
        if annotation is not _ABSENT:
            self._known.append((annotation, mirror))
        self._records[mirror] = (record, ())
        inner = [self.of(each.type) for each in record.fields]
        mirror.__annotations__ = {f"f{index}": tp for index, tp in enumerate(inner)}
        done = tuple(tp is each.type for each, tp in zip(record.fields, inner, strict=True))
        self._records[mirror] = (record, done)
        return mirror

    def announce_defaults(self, write_default: WriteDefault) -> None:
        """Add the defaults of all fields to the schema, once the mirrors are complete."""
        for mirror, (record, _) in self._records.items():
            fields = zip(mirror.__annotations__.items(), record.fields, strict=True)
            mirror.__annotations__ = {
                name: _with_default(tp, MISSING if each.default is MISSING else write_default(each.default, tp))
                for (name, tp), each in fields
            }

    def _own_name(self, record: Record) -> str:
        """Return a unique mirror name: two local classes may have the same name."""
        name = record.qualname or record.name
        alike = sum(
            each.qualname == record.qualname and each.module == record.module for each, _ in self._records.values()
        )
        return f"{name}_{alike + 1}" if alike else name

    def made(self, value: Any, sent: Any) -> Any:
        """Return ``value`` with the mirrors replaced by objects. Raises `InvalidValue`, `TaskError`.

        ``sent``: the JSON of which it was made; keys that have become one are refused.
        """
        try:
            return self._made(value, sent if self._keys_may_meet else _ABSENT)
        except _Refused as error:
            raise InvalidValue([Problem(json_path(error.path[::-1]), error.problem)]) from None

    # ---------------------------------------------------------------------------------------------------- types

    def _rewritten(self, annotation: Any) -> Any:
        origin, args = get_origin(annotation), get_args(annotation)
        if isinstance(annotation, typing.TypeVar):
            bound = annotation.__bound__
            return annotation if bound is None else self._instead(annotation, bound)
        for meaning in stands_for(annotation):
            return self._instead(annotation, meaning)
        if origin is Annotated:
            return self._annotated(annotation)
        listed: Any = annotation if self._output else list_instead(annotation)
        return self._generic(annotation, origin, args) if listed is annotation else self.of(listed)

    def _generic(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Any:
        if origin is None or origin is Literal:
            return annotation
        if args and _is_mapping(origin) and not _can_be_key(args[0]):
            raise TypeError(f"keys of type {name_of(args[0])} are not supported")
        inner = tuple(each if each is ... else self.of(each) for each in args)
        if args and _is_mapping(origin) and not _is_text(args[0]):
            self._keys_may_meet = True
            return Annotated[origin[inner], msgspec.Meta()]  # not the annotation itself: `made` looks at it
        if all(new is old for new, old in zip(inner, args, strict=True)):
            return annotation
        return union_of(inner) if origin in {Union, types.UnionType} else origin[inner]

    def _annotated(self, annotation: Any) -> Any:
        base, given = get_args(annotation)[0], annotation.__metadata__
        inner, kept = self.of(base), tuple(map(_leniently, given)) if self._lenient else given
        same = inner is base and all(new is old for new, old in zip(kept, given, strict=True))
        return annotation if same else Annotated[(inner, *kept)]

    def _instead(self, name: Any, meaning: Any) -> Any:
        inner = self.of(meaning)
        return name if inner is meaning else inner

    def _may_be_absent(self, record: Record, each: Field) -> bool:
        return not record.array and admits_none(each.type)

    # ---------------------------------------------------------------------------------------------------- values

    def _made(self, value: Any, sent: Any) -> Any:
        kind = cast("Any", type(value))
        if kind in _ARRAYS:
            known = _ABSENT if kind in _SETS else sent  # what a set has cannot hold a dict
            return kind([self._inside(index, each, _part(known, index)) for index, each in enumerate(value)])
        if issubclass(kind, dict):
            return self._mapping(value, sent)
        record = self._records.get(kind)
        return value if record is None else self._constructed(value, sent, *record)

    def _mapping(self, value: dict[Any, Any], sent: Any) -> dict[Any, Any]:
        names = list(value if sent is _ABSENT else sent)
        if len(value) < len(names):
            raise _Refused(f"some of its keys are the same: {shorten(', '.join(map(repr, names)))}")
        return {
            self._made(key, _ABSENT): self._inside(key, item, _part(sent, name))
            for (key, item), name in zip(value.items(), names, strict=True)
        }

    def _constructed(self, value: Any, sent: Any, record: Record, done: tuple[bool, ...]) -> Any:
        given: dict[str, Any] = {}
        first = 1 if record.tag else 0  # of an array
        for index, (each, as_it_is) in enumerate(zip(record.fields, done, strict=True)):
            item = getattr(value, f"f{index}")
            if item is _ABSENT:
                if each.required:
                    given[each.name] = None
            elif as_it_is:
                given[each.name] = item
            else:
                step, part = (index, first + index) if record.array else (each.written, each.written)
                given[each.name] = self._inside(step, item, _part(sent, part))
        try:
            return record.make(**given)
        except TaskError:  # the user decides how the task ends
            raise
        except Exception as error:  # a user's constructor may raise anything
            raise _Refused(said(error)) from error

    def _inside(self, key: Any, value: Any, sent: Any) -> Any:
        try:
            return self._made(value, sent)
        except _Refused as error:
            error.path.append(key)
            raise


def _part(sent: Any, step: Any) -> Any:
    return _ABSENT if sent is _ABSENT else sent[step]


def _with_default(tp: Any, default: Any) -> Any:
    return tp if default is MISSING else Annotated[tp, msgspec.Meta(extra_json_schema={"default": default})]


def checks_badly(name: object, value: object) -> bool:
    """Whether msgspec checks a constraint badly, given as it is in a schema.

    It matches patterns with Python's ``re``, which may take years for one text, and finds that 19.99 is no multiple of
    0.01. The schema's validator takes linear time, and reckons with decimals.
    """
    return (name == "pattern" and isinstance(value, str)) or (name == "multipleOf" and isinstance(value, float))


def _leniently(constraint: Any) -> Any:
    if not isinstance(constraint, msgspec.Meta):
        return constraint
    given = dict(constraint.__rich_repr__())
    kept = {name: value for name, value in given.items() if not checks_badly(_IN_SCHEMAS.get(name, name), value)}
    return constraint if len(kept) == len(given) else msgspec.Meta(**kept)


_IN_SCHEMAS: Final = {"multiple_of": "multipleOf"}


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_text(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_text(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return all(isinstance(each, str) for each in get_args(annotation))
    return annotation in {str, Any} or any(map(_is_text, stands_for(annotation)))


def _can_be_key(annotation: Any) -> bool:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in {Union, types.UnionType}:
        return all(each is types.NoneType or _can_be_key(each) for each in args)
    if origin is Annotated:
        return _can_be_key(args[0])
    if origin is Literal or isinstance(annotation, typing.TypeVar):
        return True
    if meanings := stands_for(annotation):
        return all(map(_can_be_key, meanings))
    return annotation in _KEYS or (isinstance(annotation, type) and issubclass(annotation, enum.Enum))


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """A value refused by its constructor; on its way up each container adds its key."""

    def __init__(self, problem: str) -> None:
        self.problem: str = problem
        self.path: list[Any] = []
