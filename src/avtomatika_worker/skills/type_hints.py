"""Inspects type hints: their parts, and the engine they need."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, Never, NoReturn, NotRequired, Required, Union, get_args, get_origin

import msgspec

from avtomatika_worker.protocol.uris import S3Uri

MISSING: Final = dataclasses.MISSING
"""No type hint, or no default."""

_SAYS_NOTHING: Final = frozenset(
    {MISSING, None, types.NoneType, Never, NoReturn, Any, object, dict, Mapping, typing.Dict, typing.Mapping}  # noqa: UP006
)
_ITERABLES: Final = (collections.abc.Iterable, collections.abc.Reversible, collections.abc.Container)
_PYDANTIC_MODULES: Final = frozenset({"pydantic", "pydantic_core", "annotated_types"})


class UnsupportedTypeError(TypeError):
    """A type that has no schema; the message says why."""


def says_nothing(annotation: Any) -> bool:
    """Whether a type leaves an object unconstrained: ``dict``, ``dict[str, Any]``, ``Any``, or no type at all."""
    try:
        if annotation in _SAYS_NOTHING:
            return True
    except TypeError:  # unhashable
        return False
    return get_origin(annotation) in {dict, Mapping} and get_args(annotation)[-1:] == (Any,)


def typed_dict_for_pydantic(name: str, fields: dict[str, Any]) -> Any:
    """Make a TypedDict that pydantic accepts: not the standard library's, before Python 3.12."""
    import typing_extensions

    make: Any = typing_extensions.TypedDict
    return make(name, fields)


def for_pydantic(annotation: Any, above: tuple[Any, ...] = ()) -> Any:
    """Replace the standard library's TypedDicts with ones that pydantic accepts before Python 3.12."""
    if sys.version_info >= (3, 12) or annotation in above:
        return annotation
    inside = (*above, annotation)
    if typing.is_typeddict(annotation) and type(annotation).__module__ == "typing":
        hints = {
            field: tp
            if get_origin(tp) in {Required, NotRequired}
            else (Required if field in annotation.__required_keys__ else NotRequired)[tp]
            for field, tp in typing.get_type_hints(annotation, include_extras=True).items()
        }
        return typed_dict_for_pydantic(annotation.__name__, {f: for_pydantic(tp, inside) for f, tp in hints.items()})
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is None or origin is Literal or not mentions(annotation, typing.is_typeddict):
        return annotation
    if origin is Annotated:
        return annotation.copy_with((for_pydantic(args[0], inside),))
    if origin in {Union, types.UnionType}:
        return functools.reduce(lambda one, other: one | other, (for_pydantic(each, inside) for each in args))
    converted_args = tuple(for_pydantic(each, inside) for each in args)
    return origin[converted_args[0] if len(converted_args) == 1 else converted_args]


def union_of(members: tuple[Any, ...]) -> Any:
    """Return the union of types."""
    return Union[members]  # noqa: UP007 - their number is not known


def members_of(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union; any other type is its own only member."""
    return get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else (annotation,)


def field_types(annotation: Any) -> dict[str, Any]:
    """Return the fields of a class with typed fields; empty for others."""
    if not isinstance(annotation, type):
        return {}
    marks = ("__dataclass_fields__", "__struct_fields__", "__total__", "_fields", "model_fields", "__attrs_attrs__")
    if not any(hasattr(annotation, mark) for mark in marks):
        return {}
    return typing.get_type_hints(annotation, include_extras=True)


def class_hints(annotation: Any) -> dict[str, Any]:
    """Return the type hints of a class, with arguments if generic. Raises NameError, TypeError."""
    cls: Any = get_origin(annotation) or annotation
    scopes: dict[Any, dict[Any, Any]] = {}
    _collect_arguments(annotation, {}, scopes)
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if own := inspect.get_annotations(base):
            resolved = typing.get_type_hints(base, include_extras=True)
            hints.update({name: _substituted(resolved[name], scopes.get(base, {})) for name in own})
    return hints


def _collect_arguments(annotation: Any, scope: dict[Any, Any], scopes: dict[Any, dict[Any, Any]]) -> None:
    """Return the arguments for the type variables of a class and of its bases."""
    cls: Any = get_origin(annotation) or annotation
    if cls in scopes or not isinstance(cls, type) or cls is typing.Generic:
        return
    args = (_substituted(each, scope) for each in get_args(annotation))
    scopes[cls] = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        _collect_arguments(base, scopes[cls], scopes)


def _substituted(tp: Any, scope: Mapping[Any, Any]) -> Any:
    if isinstance(tp, typing.TypeVar):
        return scope.get(tp, tp)
    parameters = () if hasattr(tp, "__mro__") and get_origin(tp) is None else getattr(tp, "__parameters__", ())
    return tp[tuple(scope.get(each, each) for each in parameters)] if parameters and scope else tp


def admits_none(annotation: Any) -> bool:
    """Whether a type includes None."""
    if annotation in (Any, object, None, types.NoneType):
        return True
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return admits_none(args[0])
    if origin is Literal:
        return None in args
    if origin in {Union, types.UnionType}:
        return any(map(admits_none, args))
    if isinstance(annotation, typing.TypeVar):
        return admits_none(Any if annotation.__bound__ is None else annotation.__bound__)
    return any(map(admits_none, stands_for(annotation)))


def is_named_tuple(value: object) -> bool:
    """Whether ``value`` is a NamedTuple or its class."""
    return hasattr(value, "_fields") and (
        isinstance(value, tuple) or (isinstance(value, type) and issubclass(value, tuple))
    )


def list_instead(annotation: Any) -> Any:
    """Return the list that comes for a type that promises no more than iteration; any other type as it is.

    What pydantic makes of an ``Iterable`` is checked late, while the skill runs, and empty the second time.
    """
    if not any((get_origin(annotation) or annotation) is each for each in _ITERABLES):
        return annotation
    items: Any = (get_args(annotation) or (Any,))[0]
    return list[items]


def without_requiredness(annotation: Any) -> Any:
    """Return the type inside ``Required[…]`` or ``NotRequired[…]``."""
    return get_args(annotation)[0] if get_origin(annotation) in {Required, NotRequired} else annotation


_CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")


def needs_pydantic(annotation: Any) -> bool:
    """Whether a type contains something that only pydantic understands."""
    return mentions(annotation, _is_pydantic)


def _is_pydantic(part: Any) -> bool:
    if part is S3Uri:  # both engines know it
        return False
    if hasattr(part, "__get_pydantic_core_schema__") or hasattr(part, "__pydantic_core_schema__"):
        return True
    kinds = () if isinstance(part, type) else type(part).__mro__
    return any(kind.__module__.partition(".")[0] in _PYDANTIC_MODULES for kind in kinds)


def is_msgspec_constraint(part: Any) -> bool:
    """Whether a part of a type has meaning only to msgspec."""
    return isinstance(part, msgspec.Meta) or (isinstance(part, type) and issubclass(part, msgspec.Struct))


def is_constraint(part: Any) -> bool:
    """Whether a part of an ``Annotated`` limits or changes values, in msgspec or pydantic; a description does not."""
    if isinstance(part, msgspec.Meta):
        return any(getattr(part, name) is not None for name in _CONSTRAINTS)
    within: Any = getattr(part, "metadata", None)  # of pydantic's Field
    return _is_pydantic(part) if within is None else bool(within)


def mentions(annotation: Any, test: Callable[[Any], bool]) -> bool:
    """Whether ``test`` holds for anything in a type: its arguments, its fields, their annotations and defaults."""
    seen: list[Any] = []
    todo = [annotation]
    while todo:
        part = todo.pop()
        if any(part is each for each in seen):
            continue
        seen.append(part)
        if test(part):
            return True
        if get_origin(part) is Annotated:
            todo.extend(part.__metadata__)
        todo.extend(get_args(part))
        # the class of a generic alias, or the type behind a NewType or a ``type`` statement
        todo.extend(each for each in (get_origin(part), *stands_for(part)) if each is not None)
        todo.extend(field_types(part).values())
        todo.extend(field.default for field in getattr(part, "__dataclass_fields__", {}).values())
    return False


def stands_for(annotation: Any) -> tuple[Any, ...]:
    """Return the type named by a NewType or a ``type`` statement."""
    if isinstance(annotation, type):
        return ()
    alias: Any = get_origin(annotation)
    if hasattr(alias, "__value__"):  # a generic one
        return (_substituted(alias.__value__, dict(zip(alias.__type_params__, get_args(annotation), strict=False))),)
    return tuple(getattr(annotation, name) for name in ("__supertype__", "__value__") if hasattr(annotation, name))


def name_of(annotation: Any) -> str:
    """Return a type's name for messages."""
    return getattr(annotation, "__name__", None) or str(annotation)
