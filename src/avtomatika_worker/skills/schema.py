"""From type hints to JSON Schemas and converters.

Two engines: msgspec for what it can represent faithfully, pydantic where the types hold pydantic models or constraints
that msgspec would silently ignore. What neither can do is an error at registration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NotRequired, Required, TypedDict, Union, cast, get_args, get_origin

import msgspec

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.skills.contract import ENVELOPE_KEYS, ENVELOPE_MARKS, JsonSchema
from avtomatika_worker.skills.plain import is_named_tuple, to_plain
from avtomatika_worker.skills.validation import InvalidValue, Problem, Schema, json_path, shorten

MISSING: Final = dataclasses.MISSING
Fields = Mapping[str, tuple[Any, Any]]
"""Field name → type and default (`MISSING` when it is required)."""

_PATH_SCHEMA: Final = {"type": "string", "format": "path"}
_SAYS_NOTHING: Final = frozenset({Any, object, dict, Mapping, typing.Dict, typing.Mapping})  # noqa: UP006


class UnsupportedTypeError(TypeError):
    """A type that no engine can make a schema of; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class TypeContract:
    """A type as a JSON Schema and a converter. ``convert`` raises `InvalidValue`."""

    schema: JsonSchema
    convert: Callable[[object], Any]


def infer_input(annotation: Any) -> TypeContract | None:
    """Return the contract of an argument's type, None when the type says nothing. Raises `UnsupportedTypeError`."""
    if says_nothing(annotation):
        return None
    contract = _fields_of_named_tuple(annotation) if is_named_tuple(annotation) else _by_engine(annotation)
    kind = contract.schema.get("type")
    if kind is not None and kind != "object":
        raise UnsupportedTypeError(f"params are always an object, but {_name(annotation)} is of type {kind}")
    return contract


def infer_fields(name: str, fields: Fields) -> TypeContract:
    """Return the contract of an object with these fields; ``convert`` returns a dict of those that were given."""
    plain_types = {field: tp for field, (tp, _) in fields.items()}
    pydantic = any(_needs_pydantic(tp) for tp in plain_types.values())
    hints = {
        field: Required[tp] if fields[field][1] is MISSING else NotRequired[tp] for field, tp in plain_types.items()
    }
    contract = _by_engine(_typed_dict(name, hints, pydantic=pydantic))
    properties = cast("dict[str, Any]", contract.schema.get("properties", {}))
    for field, (_, default) in fields.items():
        if default is not MISSING and field in properties:
            with contextlib.suppress(UnsendableValueError):  # a default that is no JSON is just not announced
                properties[field] = {**properties[field], "default": to_plain(default)}
    return contract


def infer_output(annotation: Any) -> JsonSchema | None:
    """Return the schema of the data that a function with this return type produces, None when nothing is known."""
    members = [member for member in _members(annotation) if member is not types.NoneType]
    if not members or any(says_nothing(member) for member in members):
        return None
    if len(members) == 1:
        schema = _data_schema(members[0])
    else:
        schemas = [_data_schema(member) for member in members]
        schema = None if any(each is None for each in schemas) else _any_of(cast("list[JsonSchema]", schemas))
    if schema is None or len(members) == len(_members(annotation)):
        return schema
    return _any_of([schema, {"type": "object", "maxProperties": 0}])  # None is no data


def explicit(given: Any) -> TypeContract:
    """Return the contract of a schema that the user wrote: a JSON Schema, or a type. Raises `UnsupportedTypeError`."""
    if isinstance(given, Mapping):
        try:
            schema = Schema(dict(cast("Mapping[str, Any]", given)))
        except ValueError as error:
            raise UnsupportedTypeError(f"not a JSON Schema: {shorten(str(error))}") from None

        def check(value: object) -> object:
            schema.check(value)
            return value

        return TypeContract(schema.json, check)
    return _fields_of_named_tuple(given) if is_named_tuple(given) else _by_engine(given)


def says_nothing(annotation: Any) -> bool:
    """Whether a type puts no bounds on an object: ``dict``, ``dict[str, Any]``, ``Any``, or none at all."""
    if annotation in {MISSING, None} or annotation is types.NoneType:
        return True
    try:
        if annotation in _SAYS_NOTHING:
            return True
    except TypeError:  # not hashable
        return False
    return get_origin(annotation) in {dict, Mapping} and get_args(annotation)[-1:] == (Any,)


# ------------------------------------------------------------------------------------------------------ output


def _data_schema(annotation: Any) -> JsonSchema | None:
    fields = _field_types(annotation)
    if fields and fields.keys() <= ENVELOPE_KEYS and not fields.keys().isdisjoint(ENVELOPE_MARKS):
        return infer_output(_without_requiredness(fields["data"])) if "data" in fields else None
    if is_named_tuple(annotation):
        return _fields_of_named_tuple(annotation).schema
    schema = _by_engine(annotation, output=True).schema
    if schema.get("type") == "object":
        return schema
    definitions = schema.pop("$defs", None)
    wrapped: JsonSchema = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
    return {**wrapped, "$defs": definitions} if definitions else wrapped


def _any_of(schemas: list[JsonSchema]) -> JsonSchema | None:
    """Join schemas; None when two of them mean different things by one name."""
    definitions: dict[str, Any] = {}
    alternatives: list[JsonSchema] = []
    for schema in schemas:
        body = dict(schema)
        for name, definition in body.pop("$defs", {}).items():
            if definitions.setdefault(name, definition) != definition:
                return None
        alternatives.append(body)
    joined: JsonSchema = {"type": "object", "anyOf": alternatives}
    return {**joined, "$defs": definitions} if definitions else joined


# ------------------------------------------------------------------------------------------------------ engines


def _by_engine(annotation: Any, *, output: bool = False) -> TypeContract:
    if _needs_pydantic(annotation):
        return _with_pydantic(annotation, output=output)
    try:
        return _with_msgspec(annotation)
    except TypeError as error:
        try:
            return _with_pydantic(annotation, output=output)
        except UnsupportedTypeError:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise UnsupportedTypeError(f"no schema can be made of {_name(annotation)}: {reason}") from error


def _with_msgspec(annotation: Any) -> TypeContract:
    schema = _unfold(msgspec.json.schema(annotation, schema_hook=_schema_hook))
    compiled = Schema(schema)

    def convert(value: object) -> Any:
        try:
            return msgspec.convert(value, annotation, dec_hook=_dec_hook)
        except msgspec.ValidationError as error:
            # The schema's validator names every problem and its path; msgspec only the first, inside its message.
            raise InvalidValue(compiled.problems(value) or (_problem_of(error),)) from None

    return TypeContract(schema, convert)


def _with_pydantic(annotation: Any, *, output: bool) -> TypeContract:
    try:
        import pydantic
    except ImportError:
        raise UnsupportedTypeError(
            f'{_name(annotation)} needs pydantic: pip install "avtomatika-worker[pydantic]"'
        ) from None
    if _mentions(annotation, _is_msgspec_constraint):
        raise UnsupportedTypeError(f"{_name(annotation)} mixes msgspec's types with pydantic's; use one of them")
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
        schema = _unfold(adapter.json_schema(mode="serialization" if output else "validation"))
    except pydantic.errors.PydanticUserError as error:
        raise UnsupportedTypeError(f"no schema can be made of {_name(annotation)}: {error.message}") from error

    def convert(value: object) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise InvalidValue([Problem(json_path(each["loc"]), shorten(each["msg"])) for each in found]) from None

    return TypeContract(schema, convert)


def _problem_of(error: msgspec.ValidationError) -> Problem:
    text, _, path = str(error).partition(" - at `")
    return Problem(path.rstrip("`") or "$", text)


def _schema_hook(tp: type) -> JsonSchema:
    if issubclass(tp, Path):
        return dict(_PATH_SCHEMA)
    raise NotImplementedError


def _dec_hook(tp: type, value: object) -> object:
    if issubclass(tp, Path) and isinstance(value, str):
        return tp(value)
    raise msgspec.ValidationError(f"Expected `{tp.__name__}`, got `{type(value).__name__}`")


def _unfold(schema: JsonSchema) -> JsonSchema:
    """Put the definition that a schema's top refers to at the top, where readers and forms look."""
    reference = schema.get("$ref")
    definitions = schema.get("$defs")
    if not isinstance(reference, str) or not isinstance(definitions, dict):
        return schema
    name = reference.rpartition("/")[2]
    rest = {key: value for key, value in cast("dict[str, Any]", definitions).items() if key != name}
    top = cast("dict[str, Any]", definitions[name])
    body = {**top, **{key: value for key, value in schema.items() if key not in {"$ref", "$defs"}}}
    if f'"{reference}"' in msgspec.json.encode(definitions).decode():
        rest[name] = top  # it is recursive
    return {**body, "$defs": rest} if rest else body


# ------------------------------------------------------------------------------------------------------ looking at types


def _fields_of_named_tuple(annotation: Any) -> TypeContract:
    hints = typing.get_type_hints(annotation, include_extras=True)
    defaults = annotation._field_defaults
    fields = {name: (hints.get(name, Any), defaults.get(name, MISSING)) for name in annotation._fields}
    contract = infer_fields(annotation.__name__, fields)
    return TypeContract(contract.schema, lambda value: annotation(**contract.convert(value)))


def _typed_dict(name: str, hints: dict[str, Any], *, pydantic: bool) -> Any:
    if pydantic:  # it does not take the standard library's before Python 3.12
        import typing_extensions

        return typing_extensions.TypedDict(name, hints)
    return TypedDict(name, hints)  # type: ignore[operator]  # pyright: ignore


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else (annotation,)


def _field_types(annotation: Any) -> dict[str, Any]:
    """Return the fields of a class that has typed fields, else nothing."""
    if not isinstance(annotation, type):
        return {}
    marks = ("__dataclass_fields__", "__struct_fields__", "__total__", "_fields", "model_fields")
    if not any(hasattr(annotation, mark) for mark in marks):
        return {}
    return typing.get_type_hints(annotation, include_extras=True)


def _without_requiredness(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) in {Required, NotRequired} else annotation


def _needs_pydantic(annotation: Any) -> bool:
    return _mentions(annotation, _is_pydantic)


def _is_pydantic(part: Any) -> bool:
    if isinstance(part, type):
        return hasattr(part, "__pydantic_validator__") or hasattr(part, "__pydantic_core_schema__")
    return type(part).__module__.partition(".")[0] in {"pydantic", "annotated_types", "pydantic_core"}


def _is_msgspec_constraint(part: Any) -> bool:
    return isinstance(part, msgspec.Meta) or (isinstance(part, type) and issubclass(part, msgspec.Struct))


def _mentions(annotation: Any, test: Callable[[Any], bool]) -> bool:
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
        todo.extend(_field_types(part).values())
        todo.extend(field.default for field in getattr(part, "__dataclass_fields__", {}).values())
    return False


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)
