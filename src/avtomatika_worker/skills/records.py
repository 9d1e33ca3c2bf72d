"""A uniform view of classes with fields: dataclasses, Structs, TypedDicts, NamedTuples and attrs classes.

As input, a record has the parameters of its constructor; as output, the attributes of its instances.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NotRequired, Required, get_args, get_origin

import msgspec

from avtomatika_worker.narrowing import as_any
from avtomatika_worker.skills.type_hints import MISSING, UnsupportedTypeError, class_hints, is_named_tuple

_EMPTY_FACTORIES: tuple[Any, ...] = (list, dict, set, frozenset, tuple)


class Field(msgspec.Struct, frozen=True):
    """A field: ``name`` in Python, ``written`` in JSON. ``default`` is `MISSING` without one, or with a factory."""

    name: str
    written: str
    type: Any
    required: bool
    default: Any


@dataclass(frozen=True, slots=True)
class Record:
    """The parts of a class with fields."""

    name: str
    fields: tuple[Field, ...]
    make: Callable[..., Any]
    """Builds an object from the given fields, by their Python names."""
    module: str = __name__
    qualname: str | None = None
    doc: str | None = None
    array: bool = False
    """Whether it is an array in JSON."""
    closed: bool = False
    """Whether other fields are refused."""
    tag: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What distinguishes it from other members of a union, as msgspec's options."""


def record_of(annotation: Any, *, output: bool = False) -> Record | None:
    """Return the parts of a class, or None without typed fields. Raises NameError, TypeError."""
    cls: Any = get_origin(annotation) or annotation
    if not hasattr(cls, "__mro__"):
        return None
    if issubclass(cls, msgspec.Struct):
        return _of_struct(annotation, cls)
    if dataclasses.is_dataclass(cls):
        fields = _dataclass_fields(annotation, cls, output=output)
    elif hasattr(cls, "__attrs_attrs__"):
        fields = _attrs_fields(annotation, cls, output=output)
    elif typing.is_typeddict(cls) or hasattr(cls, "__total__"):
        fields = _typed_dict_fields(annotation, cls)
    elif is_named_tuple(cls):
        return _record(annotation, cls, _named_tuple_fields(annotation, cls), array=True, closed=True)
    else:
        return None
    return _record(annotation, cls, fields)


def _record(annotation: Any, cls: Any, fields: list[Field], **more: Any) -> Record:
    args = ", ".join(getattr(each, "__name__", str(each)) for each in get_args(annotation))
    doc = cls.__dict__.get("__doc__")
    if doc is not None and doc.startswith(f"{cls.__name__}("):  # the generated one
        doc = None
    record = Record(
        name=f"{cls.__name__}[{args}]" if args else cls.__name__,
        fields=tuple(fields),
        make=dict if dict in cls.__mro__ else cls,
        module=cls.__module__,
        qualname=cls.__qualname__,
        doc=doc,
    )
    return replace(record, **more)


def _of_struct(annotation: Any, cls: Any) -> Record:
    config = cls.__struct_config__
    fields = [
        Field(
            each.name,
            each.encode_name,
            each.type,
            required=each.required,
            default=_default(each.default, each.default_factory, msgspec.NODEFAULT),
        )
        for each in msgspec.structs.fields(annotation)
    ]
    tag = {} if config.tag is None else {"tag": config.tag, "tag_field": config.tag_field}
    return _record(annotation, cls, fields, array=config.array_like, closed=config.forbid_unknown_fields, tag=tag)


def _dataclass_fields(annotation: Any, cls: Any, *, output: bool) -> list[Field]:
    hints = class_hints(annotation)
    known: dict[str, dataclasses.Field[Any]] = {
        name: each
        for name, each in cls.__dataclass_fields__.items()
        if hints.get(name) is not ClassVar and get_origin(hints.get(name)) is not ClassVar
    }
    if output:
        own = [each for each in known.values() if not _is_init_var(hints.get(each.name))]
        defaults = {each.name: _default(each.default, each.default_factory, MISSING) for each in own}
        needed = {each.name: each.default is MISSING and each.default_factory is MISSING for each in own}
    else:
        given = _constructor(cls, known)
        own = [known[name] for name in given]
        defaults = {each.name: _default(each.default, each.default_factory, MISSING) for each in own}
        needed = {name: parameter.default is parameter.empty for name, parameter in given.items()}
    return [
        Field(
            each.name, each.name, _without_init_var(hints.get(each.name, Any)), needed[each.name], defaults[each.name]
        )
        for each in own
    ]


def _constructor(cls: Any, fields: Mapping[str, Any]) -> dict[str, inspect.Parameter]:
    """Return the fields that the constructor accepts, in the order of declaration."""
    parameters = inspect.signature(cls).parameters
    for name, parameter in parameters.items():
        if name not in fields and parameter.default is parameter.empty and parameter.kind in _NAMED:
            problem = f"the constructor of {cls.__name__} wants {name!r}, which is not one of its fields"
            raise UnsupportedTypeError(problem)
    return {name: parameters[name] for name in fields if name in parameters}


_NAMED = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


def _attrs_fields(annotation: Any, cls: Any, *, output: bool) -> list[Field]:
    attr: Any = sys.modules["attr"]  # it made the class
    hints = class_hints(annotation)
    known = {each.alias: each for each in cls.__attrs_attrs__}
    taken = inspect.signature(cls).parameters
    fields: list[Field] = []
    for alias, each in known.items():
        if output or alias in taken:
            plain = each.default is not attr.NOTHING and not isinstance(each.default, attr.Factory)
            name = each.name if output else alias
            hint = hints.get(each.name, Any)
            default = each.default if plain else MISSING
            fields.append(Field(name, each.name, hint, each.default is attr.NOTHING, default))
    return fields


def _typed_dict_fields(annotation: Any, cls: Any) -> list[Field]:
    fields: list[Field] = []
    for name, hint in class_hints(annotation).items():
        needed, tp = name in cls.__required_keys__, hint
        while get_origin(tp) in _MARKS:
            needed = (needed or get_origin(tp) is Required) and get_origin(tp) is not NotRequired
            tp = get_args(tp)[0]
        fields.append(Field(name, name, tp, needed, MISSING))
    return fields


def _marks() -> frozenset[Any]:
    import typing_extensions

    return frozenset({Required, NotRequired, typing_extensions.ReadOnly, getattr(typing, "ReadOnly", Required)})


_MARKS = _marks()


def _named_tuple_fields(annotation: Any, cls: Any) -> list[Field]:
    hints = class_hints(annotation)
    defaults: dict[str, Any] = cls._field_defaults
    names: tuple[str, ...] = cls._fields
    return [
        Field(name, name, hints.get(name, Any), name not in defaults, defaults.get(name, MISSING)) for name in names
    ]


def _is_init_var(hint: Any) -> bool:
    return hint is dataclasses.InitVar or isinstance(hint, dataclasses.InitVar)


def _without_init_var(hint: Any) -> Any:
    if isinstance(as_any(hint), dataclasses.InitVar):
        return hint.type
    return Any if hint is dataclasses.InitVar else hint


def _default(value: Any, factory: Any, nothing: Any) -> Any:
    """Return a default known without running user code: of the factories, only empty containers."""
    if value is not nothing:
        return value
    return factory() if factory in _EMPTY_FACTORIES else MISSING
