"""From type hints to JSON Schemas and converters.

Two engines: msgspec for what it can represent faithfully, pydantic where the types hold pydantic models or constraints
that msgspec would silently ignore. What neither can do is an error at registration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NotRequired, Required, TypedDict, cast, get_args, get_origin

import msgspec

from avtomatika_worker._extras import install_hint
from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.protocol.uris import JSON_SCHEMA as URI_SCHEMA
from avtomatika_worker.protocol.uris import S3Uri
from avtomatika_worker.skills.contract import ENVELOPE_KEYS, ENVELOPE_MARKS, JsonSchema
from avtomatika_worker.skills.hints import (
    MISSING,
    field_types,
    for_pydantic,
    is_msgspec_constraint,
    members_of,
    mentions,
    name_of,
    needs_pydantic,
    says_nothing,
    typed_dict_for_pydantic,
    without_requiredness,
)
from avtomatika_worker.skills.plain import is_named_tuple, to_plain
from avtomatika_worker.skills.validation import InvalidValue, Problem, Schema, json_path, shorten

Fields = Mapping[str, tuple[Any, Any]]
"""Field name → type and default (`MISSING` when it is required)."""

_MOST: Final = 20
_PATH_SCHEMA: Final = {"type": "string", "format": "path"}


class UnsupportedTypeError(TypeError):
    """A type that no engine can make a schema of; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class TypeContract:
    """A type as a JSON Schema and a converter. ``convert`` raises `InvalidValue`."""

    schema: JsonSchema
    convert: Callable[[object], Any]
    inferred: JsonSchema | None = None
    """What the type hints say, where the user wrote another schema."""


def infer_input(annotation: Any) -> TypeContract | None:
    """Return the contract of an argument's type, None when the type says nothing. Raises `UnsupportedTypeError`."""
    if says_nothing(annotation):
        return None
    contract = _fields_of_named_tuple(annotation) if is_named_tuple(annotation) else _by_engine(annotation)
    if not _may_be_object(contract.schema):
        advice = "give the argument another name than params, and it is a field of them"
        raise UnsupportedTypeError(f"params are always an object, but {name_of(annotation)} is none; {advice}")
    return contract


def infer_fields(name: str, fields: Fields) -> TypeContract:
    """Return the contract of an object with these fields; ``convert`` returns a dict of those that were given."""
    plain_types = {field: tp for field, (tp, _) in fields.items()}
    pydantic = any(needs_pydantic(tp) for tp in plain_types.values())
    hints = {
        field: Required[tp] if fields[field][1] is MISSING else NotRequired[tp] for field, tp in plain_types.items()
    }
    contract = _by_engine(_typed_dict(name, hints, pydantic=pydantic))
    properties = cast("dict[str, Any]", contract.schema.get("properties", {}))
    for field, (_, default) in fields.items():
        if default is not MISSING and field in properties:
            with contextlib.suppress(UnsendableValueError):  # a default that is no JSON is just not announced
                properties[field] = {**properties[field], "default": _sendable(to_plain(default))}
    return contract


def infer_output(annotation: Any, *, enveloped: bool = False) -> JsonSchema | None:
    """Return the schema of the data that a function with this return type produces, None when nothing is known.

    ``enveloped``: it is the type of an envelope's ``data``. Raises `UnsupportedTypeError`.
    """
    members = [member for member in members_of(annotation) if member is not types.NoneType]
    if not members or any(says_nothing(member) for member in members):
        return None
    if len(members) == 1:
        schema = _data_schema(members[0], enveloped=enveloped)
    else:
        schemas = [_data_schema(member, enveloped=enveloped) for member in members]
        schema = None if any(each is None for each in schemas) else _any_of(cast("list[JsonSchema]", schemas))
    if schema is None or len(members) == len(members_of(annotation)):
        return schema
    return _any_of([schema, {"type": "object", "maxProperties": 0}])  # None is no data


def explicit_input(given: Any) -> TypeContract | None:
    """Return the contract of an input schema that the user wrote: a JSON Schema, or a type."""
    if isinstance(given, str):
        raise UnsupportedTypeError(f"it must be a JSON Schema (a dict) or a type, not the text {shorten(given)!r}")
    if not isinstance(given, Mapping):
        return infer_input(given)
    schema = _written(cast("Mapping[str, Any]", given))

    def check(value: object) -> object:
        schema.check(value)
        return value

    return TypeContract(schema.json, check)


def explicit_output(given: Any) -> JsonSchema | None:
    """Return the schema of the data that the user wrote: a JSON Schema, or a type."""
    return _written(cast("Mapping[str, Any]", given)).json if isinstance(given, Mapping) else infer_output(given)


def explicit_event(given: Any) -> JsonSchema:
    """Return the schema of an event that the user wrote: a JSON Schema, or a type."""
    if isinstance(given, Mapping):
        return _written(cast("Mapping[str, Any]", given)).json
    if says_nothing(given):
        return {"type": "object"}
    schema = _fields_of_named_tuple(given).schema if is_named_tuple(given) else _by_engine(given, output=True).schema
    if not _may_be_object(schema):
        raise UnsupportedTypeError(f"an event's payload is always an object, but {name_of(given)} is none")
    return schema


def _may_be_object(schema: JsonSchema) -> bool:
    return schema.get("type", "object") == "object" and schema.keys().isdisjoint({"enum", "const"})


def _written(schema: Mapping[str, Any]) -> Schema:
    try:
        return Schema(dict(schema))
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise UnsupportedTypeError(f"not a JSON Schema: {shorten(reason)}") from None


# ------------------------------------------------------------------------------------------------------ output


def is_data_type(annotation: Any) -> bool:
    """Whether every dict of this return type is data: a TypedDict that has other fields than an envelope's."""
    members = [_bare_type(member) for member in members_of(_bare_type(annotation)) if member is not types.NoneType]
    typed = [_typed_dict_fields(member) for member in members]
    return any(typed) and not any(
        _is_envelope_type(fields) or (not fields and says_nothing(member))
        for member, fields in zip(members, typed, strict=True)
    )


def _bare_type(annotation: Any) -> Any:
    """Return what an ``Annotated`` or a ``type`` statement stands for, and the class of a generic one."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif not isinstance(annotation, type) and hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            break
    origin = get_origin(annotation)
    return origin if isinstance(origin, type) and _typed_dict_fields(origin) else annotation


def _typed_dict_fields(annotation: Any) -> dict[str, Any]:
    return field_types(annotation) if dict in getattr(annotation, "__mro__", ()) else {}  # whoever's TypedDict


def _is_envelope_type(fields: Mapping[str, Any]) -> bool:
    return bool(fields) and fields.keys() <= ENVELOPE_KEYS and not fields.keys().isdisjoint(ENVELOPE_MARKS)


def _data_schema(annotation: Any, *, enveloped: bool) -> JsonSchema | None:
    fields = _typed_dict_fields(annotation)
    if _is_envelope_type(fields) and not enveloped:
        return infer_output(without_requiredness(fields["data"]), enveloped=True) if "data" in fields else None
    if is_named_tuple(annotation) and not enveloped:  # inside of the envelope it is an array, see `to_plain`
        return _fields_of_named_tuple(annotation).schema
    schema = _by_engine(annotation, output=True).schema
    if schema.get("type") == "object":
        return schema
    definitions = schema.pop("$defs", None)
    wrapped: JsonSchema = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
    return {**wrapped, "$defs": definitions} if definitions else wrapped


def _any_of(schemas: list[JsonSchema]) -> JsonSchema:
    """Join schemas; where two of them mean different things by one name, the later one's gets a number."""
    definitions: dict[str, Any] = {}
    alternatives: list[JsonSchema] = []
    for schema in schemas:
        body = schema
        for name, definition in cast("dict[str, Any]", schema.get("$defs", {})).items():
            if definitions.get(name, definition) != definition:
                body = _renamed(body, name, f"{name}_{len(definitions)}")
        definitions.update(body.get("$defs", {}))
        alternatives.append({key: value for key, value in body.items() if key != "$defs"})
    joined: JsonSchema = {"type": "object", "anyOf": alternatives}
    return {**joined, "$defs": definitions} if definitions else joined


def _renamed(schema: JsonSchema, old: str, new: str) -> JsonSchema:
    text = msgspec.json.encode(schema).decode().replace(f'"#/$defs/{old}"', f'"#/$defs/{new}"')
    renamed = cast("JsonSchema", msgspec.json.decode(text))
    renamed["$defs"][new] = renamed["$defs"].pop(old)
    return renamed


# ------------------------------------------------------------------------------------------------------ engines


def _by_engine(annotation: Any, *, output: bool = False) -> TypeContract:
    if needs_pydantic(annotation):
        return _with_pydantic(annotation, output=output)
    try:
        return _with_msgspec(annotation)
    except TypeError as error:
        try:
            return _with_pydantic(annotation, output=output)
        except UnsupportedTypeError:
            raise UnsupportedTypeError(_no_schema(annotation, error)) from error


def _no_schema(annotation: Any, error: TypeError) -> str:
    """Say which type no schema can be made of: msgspec names it in its last line, behind advice on its own API."""
    lines = str(error).splitlines()
    reason = lines[-1] if len(lines) > 1 else lines[0]
    advice = "use a dataclass, TypedDict, NamedTuple, Struct or pydantic model, or annotate it as Any"
    return f"no schema can be made of {name_of(annotation)}: {reason}; {advice}"


def _with_msgspec(annotation: Any) -> TypeContract:
    schema = _announceable(_unfold(_dedented(msgspec.json.schema(annotation, schema_hook=_schema_hook))))
    compiled = _written(schema)

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
        raise UnsupportedTypeError(f"{name_of(annotation)} needs pydantic; {install_hint('pydantic')}") from None
    if mentions(annotation, is_msgspec_constraint):
        raise UnsupportedTypeError(f"{name_of(annotation)} mixes msgspec's types with pydantic's; use one of them")
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(for_pydantic(annotation))
        schema = _announceable(_unfold(adapter.json_schema(mode="serialization" if output else "validation")))
    except pydantic.errors.PydanticUserError as error:
        if error.code == "class-not-fully-defined":
            raise NameError(error.message.partition(";")[0]) from None
        raise UnsupportedTypeError(f"no schema can be made of {name_of(annotation)}: {error.message}") from error

    def convert(value: object) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            problems = {_pydantic_problem(each["loc"], each["msg"], each["type"], value): None for each in found}
            raise InvalidValue(list(problems)[:_MOST]) from None

    return TypeContract(schema, convert)


def _pydantic_problem(location: Sequence[int | str], message: str, kind: str, value: Any) -> Problem:
    """Leave out of the location what is no part of the data: the names of unions' members and of functions."""
    path: list[int | str] = []
    for part in location:
        item = _item(value, part)
        if item is not MISSING:
            value = item
            path.append(part)
    if kind == "missing":
        path.append(location[-1])
    return Problem(json_path(path), shorten(message))


def _item(value: Any, part: int | str) -> Any:
    if isinstance(value, str):
        return MISSING
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return MISSING


def _problem_of(error: msgspec.ValidationError) -> Problem:
    text, _, path = str(error).partition(" - at `")
    return Problem(path.rstrip("`") or "$", text)


def _schema_hook(tp: type) -> JsonSchema:
    if issubclass(tp, Path):
        return dict(_PATH_SCHEMA)
    if issubclass(tp, S3Uri):
        return dict(URI_SCHEMA)
    raise NotImplementedError


def _dec_hook(tp: type, value: object) -> object:
    if issubclass(tp, Path | S3Uri) and isinstance(value, str):
        return tp(value)
    raise msgspec.ValidationError(f"Expected `{tp.__name__}`, got `{type(value).__name__}`")


def _dedented(schema: JsonSchema) -> JsonSchema:
    """Take the indentation out of what classes' docstrings say: msgspec, unlike pydantic, leaves it in."""
    definitions: dict[str, dict[str, Any]] = schema.get("$defs", {})
    for definition in definitions.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return schema


def _announceable(schema: JsonSchema) -> JsonSchema:
    """Take out the defaults that cannot be sent, such as infinity: a worker that announced them would stay unknown."""
    return cast("JsonSchema", _without_unsendable_defaults(schema))


def _without_unsendable_defaults(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_unsendable_defaults(each) for each in node]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(node, dict):
        return node
    fields = {key: _without_unsendable_defaults(each) for key, each in cast("dict[str, Any]", node).items()}
    if "default" in fields:
        try:
            _sendable(fields["default"])
        except UnsendableValueError:
            del fields["default"]
    return fields


def _sendable(value: Any) -> Any:
    """Return ``value``. Raises `UnsendableValueError` when no orchestrator could digest it."""
    canonical_bytes({"value": value}, NEUTRAL)
    return value


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


# ---------------------------------------------------------------------------------------------- looking at types


def _fields_of_named_tuple(annotation: Any) -> TypeContract:
    hints = typing.get_type_hints(annotation, include_extras=True)
    defaults = annotation._field_defaults
    fields = {name: (hints.get(name, Any), defaults.get(name, MISSING)) for name in annotation._fields}
    contract = infer_fields(annotation.__name__, fields)
    return TypeContract(contract.schema, lambda value: annotation(**contract.convert(value)))


def _typed_dict(name: str, hints: dict[str, Any], *, pydantic: bool) -> Any:
    if pydantic:
        return typed_dict_for_pydantic(name, {field: for_pydantic(tp) for field, tp in hints.items()})
    make: Any = TypedDict
    return make(name, hints)
