"""Turns types into JSON Schemas and converters for their values.

Two engines: msgspec for types it represents faithfully, pydantic for types with pydantic models or constraints that
msgspec would silently ignore. A type that neither supports is an error at registration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from avtomatika_worker._extras import install_hint
from avtomatika_worker.errors import TaskError
from avtomatika_worker.narrowing import is_dict, is_list
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.protocol.uris import JSON_SCHEMA as URI_SCHEMA
from avtomatika_worker.protocol.uris import S3Uri
from avtomatika_worker.skills.announced import announceable, announced_default, take_numbers_for_decimals
from avtomatika_worker.skills.arrays import array_type, is_array
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.mirrors import Mirrors, checks_badly
from avtomatika_worker.skills.records import Record
from avtomatika_worker.skills.type_hints import (
    MISSING,
    UnsupportedTypeError,
    is_msgspec_constraint,
    mentions,
    name_of,
    needs_pydantic,
)
from avtomatika_worker.skills.validation import InvalidValue, Problem, Schema, integral, said, shorten

_PATH_SCHEMA: Final = {"type": "string", "format": "path"}


class TypeContract(msgspec.Struct, frozen=True):
    """A type as a JSON Schema and a converter. ``convert`` raises `InvalidValue`."""

    schema: JsonSchema
    convert: Callable[[object], Any]
    inferred: JsonSchema | None = None
    """The schema of the type hints, if the user wrote another one."""
    write: Callable[[object], Any] | None = None
    """Writes the type's values as JSON, if not `to_plain`. Raises `UnsendableValueError`."""
    reads_more: bool = False
    """Whether ``convert`` may read fields that the schema does not list, under other names or in a user's function."""


def written_schema(schema: Mapping[str, Any]) -> Schema:
    """Compile a user's JSON Schema. Raises `UnsupportedTypeError` if it is not valid."""
    try:
        return Schema(dict(schema))
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise UnsupportedTypeError(f"not a JSON Schema: {shorten(reason)}") from None


def by_engine(annotation: Any, *, output: bool = False) -> TypeContract:
    """Return the contract of a type, from the library that knows it. Raises `UnsupportedTypeError`."""
    if needs_pydantic(annotation):
        return with_pydantic(annotation, output=output)
    return or_with_pydantic(
        name_of(annotation),
        lambda: with_msgspec(annotation, output=output),
        lambda: with_pydantic(annotation, output=output),
    )


def or_with_pydantic(
    name: str, msgspecs: Callable[[], TypeContract], pydantics: Callable[[], TypeContract]
) -> TypeContract:
    """Return msgspec's contract for a type, or pydantic's if msgspec cannot handle it."""
    try:
        return msgspecs()
    except UnsupportedTypeError:
        raise
    except TypeError as error:
        try:
            return pydantics()
        except UnsupportedTypeError:
            raise UnsupportedTypeError(_no_schema(name, error)) from error


def _no_schema(name: str, error: TypeError) -> str:
    """Return which type has no schema: msgspec names it in its last line, after advice on its own API."""
    lines = str(error).splitlines()
    reason = lines[-1] if len(lines) > 1 else lines[0]
    advice = "use a dataclass, TypedDict, NamedTuple, Struct or pydantic model, or annotate it as Any"
    return f"no schema can be made for {name}: {reason}; {advice}"


def with_msgspec(given: Any, *, output: bool = False) -> TypeContract:
    """``given``: a type, or the record of an object's fields."""
    mirrors, mirror = _mirrored(given, output=output)
    schema = _unfold(_dedented(msgspec.json.schema(mirror, schema_hook=_schema_hook)))
    schema, _ = announceable(schema if output else take_numbers_for_decimals(schema))
    compiled = written_schema(schema)
    lenient = _has_what_is_checked_badly(schema)
    if lenient:
        mirrors, mirror = _mirrored(given, output=output, lenient=True)
    finish = mirrors.made if mirror is not given else None

    def convert(value: object) -> Any:
        if lenient:
            compiled.check(value)
        converted = _converted(value, mirror, compiled)
        return converted if finish is None else finish(converted, value)

    return TypeContract(schema, convert)


def _mirrored(given: Any, *, output: bool, lenient: bool = False) -> tuple[Mirrors, Any]:
    mirrors = Mirrors(output=output, lenient=lenient)
    mirror: Any = mirrors.of_record(given) if isinstance(given, Record) else mirrors.of(given)

    def as_json(default: object, tp: Any) -> Any:
        def read(json: object) -> Any:
            return mirrors.made(_convert(json, tp), json)

        return announced_default(default, to_plain, None if output else read)

    mirrors.announce_defaults(as_json)
    return mirrors, mirror


def _has_what_is_checked_badly(schema: object) -> bool:
    if is_dict(schema):
        return any(checks_badly(name, each) or _has_what_is_checked_badly(each) for name, each in schema.items())
    return is_list(schema) and any(map(_has_what_is_checked_badly, schema))


def _converted(value: object, tp: Any, compiled: Schema) -> Any:
    try:
        return _convert(value, tp)
    except msgspec.ValidationError as error:
        # The schema's validator names every problem and its path; msgspec only the first one, in its message.
        problems = compiled.problems(value)
        if not problems and (whole := integral(value)) is not value:
            return _converted(whole, tp, compiled)
        raise InvalidValue(problems or (_problem_of(error),)) from None
    except TaskError:  # the user decides how the task ends
        raise
    except Exception as error:  # user classes may raise anything
        raise InvalidValue([Problem("$", said(error))]) from error


def _convert(value: object, tp: Any) -> Any:
    return msgspec.convert(value, tp, str_keys=True, dec_hook=_dec_hook)


def with_pydantic(
    annotation: Any, *, output: bool, defaults: Mapping[str, tuple[Any, Any]] | None = None
) -> TypeContract:
    """Return pydantic's contract for a type; ``defaults``: types and defaults of the fields that have one."""
    try:
        import pydantic
    except ImportError:
        raise UnsupportedTypeError(f"{name_of(annotation)} needs pydantic; {install_hint('pydantic')}") from None
    from avtomatika_worker.skills.pydantic_engine import PydanticType

    if mentions(annotation, is_msgspec_constraint):
        raise UnsupportedTypeError(f"{name_of(annotation)} mixes msgspec's types with pydantic's; use one of them")
    try:
        known = PydanticType(annotation)
        schema = _unfold(known.schema(output=output))
        for field, (tp, default) in (defaults or {}).items():
            one = PydanticType(tp)
            _, nullable = announceable(one.schema(output=False))
            json = announced_default(default, one.write, one.reader(nullable))
            if json is not MISSING:
                schema["properties"][field]["default"] = json
    except pydantic.errors.PydanticUserError as error:
        if error.code == "class-not-fully-defined":
            raise NameError(error.message.partition(";")[0]) from None
        raise UnsupportedTypeError(f"no schema can be made for {name_of(annotation)}: {error.message}") from error
    schema, nullable = announceable(schema)
    reads_more = defaults is None and known.reads_more
    return TypeContract(schema, known.reader(nullable), write=known.write, reads_more=reads_more)


def _problem_of(error: msgspec.ValidationError) -> Problem:
    text, _, path = str(error).partition(" - at `")
    _, of_key, inside = path.partition("key` in `")
    return Problem((inside or path).rstrip("`") or "$", f"in a key: {text}" if of_key else text)


def _schema_hook(tp: type) -> JsonSchema:
    if issubclass(tp, Path):
        return dict(_PATH_SCHEMA)
    if issubclass(tp, S3Uri):
        return dict(URI_SCHEMA)
    if is_array(tp):  # what it holds is in its hint: see `Mirrors`
        return {}
    raise NotImplementedError


def _dec_hook(tp: type, value: object) -> object:
    if is_array(tp):
        return array_type(tp).read(value)
    if issubclass(tp, Path | S3Uri) and isinstance(value, str):
        return tp(value)
    raise msgspec.ValidationError(f"Expected `{tp.__name__}`, got `{type(value).__name__}`")


def _dedented(schema: JsonSchema) -> JsonSchema:
    """Remove the indentation of class docstrings: msgspec, unlike pydantic, keeps it."""
    definitions: dict[str, dict[str, Any]] = schema.get("$defs", {})
    for definition in definitions.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return schema


def _unfold(schema: JsonSchema) -> JsonSchema:
    """Inline the definition that a schema's top level refers to, where readers and forms look."""
    reference = schema.get("$ref")
    definitions = schema.get("$defs")
    if not isinstance(reference, str) or not is_dict(definitions):
        return schema
    name = reference.rpartition("/")[2]
    rest = {key: value for key, value in definitions.items() if key != name}
    top = as_object(definitions[name])
    body = {**top, **{key: value for key, value in schema.items() if key not in {"$ref", "$defs"}}}
    if f'"{reference}"' in msgspec.json.encode(definitions).decode():
        rest[name] = top  # it is recursive
    return {**body, "$defs": rest} if rest else body
