"""Turns type hints into the contracts of params, results and events."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, NotRequired, Required, get_args, get_origin

import msgspec

from avtomatika_worker.narrowing import is_mapping
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.skills.announced import announceable
from avtomatika_worker.skills.arrays import for_pydantic_with_arrays
from avtomatika_worker.skills.contract import ENVELOPE_KEYS, ENVELOPE_MARKS, JsonSchema
from avtomatika_worker.skills.engines import (
    TypeContract,
    by_engine,
    or_with_pydantic,
    with_msgspec,
    with_pydantic,
    written_schema,
)
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.records import Field, Record, record_of
from avtomatika_worker.skills.type_hints import (
    MISSING,
    UnsupportedTypeError,
    field_types,
    for_pydantic,
    is_named_tuple,
    members_of,
    name_of,
    needs_pydantic,
    says_nothing,
    typed_dict_for_pydantic,
    union_of,
    without_requiredness,
)
from avtomatika_worker.skills.validation import shorten

Fields = Mapping[str, tuple[Any, Any]]
"""Field name → type and default (`MISSING` if required)."""

_JSON_TYPES: Final = frozenset({str, int, float, bool, list, dict})


class OutputContract(msgspec.Struct, frozen=True):
    """The data a function returns: its schema and its writer. ``write`` raises `UnsendableValueError`."""

    schema: JsonSchema
    write: Callable[[object], Any] = to_plain


def infer_input(annotation: Any) -> TypeContract | None:
    """Return the contract of an argument's type, or None if it says nothing. Raises `UnsupportedTypeError`."""
    if says_nothing(annotation):
        return None
    contract = _fields_of_named_tuple(annotation) if is_named_tuple(annotation) else by_engine(annotation)
    if not _may_be_object(contract.schema):
        advice = "give the argument a name other than params to make it a field of them"
        raise UnsupportedTypeError(f"params are always an object, but {name_of(annotation)} is not; {advice}")
    return contract


def infer_fields(name: str, fields: Fields) -> TypeContract:
    """Return the contract of an object with these fields; ``convert`` returns a dict of those given.

    A field that may be None and has no default is None if not given.
    """
    if not any(needs_pydantic(tp) for tp, _ in fields.values()):
        own = tuple(Field(each, each, tp, default is MISSING, default) for each, (tp, default) in fields.items())
        return or_with_pydantic(
            name,
            lambda: with_msgspec(Record(name, own, dict)),
            lambda: _fields_with_pydantic(name, fields),
        )
    return _fields_with_pydantic(name, fields)


def _fields_with_pydantic(name: str, given: Fields) -> TypeContract:
    fields = {field: (for_pydantic_with_arrays(tp), default) for field, (tp, default) in given.items()}
    hints = {
        field: Required[for_pydantic(tp)] if default is MISSING else NotRequired[for_pydantic(tp)]
        for field, (tp, default) in fields.items()
    }
    defaults = {field: (tp, default) for field, (tp, default) in fields.items() if default is not MISSING}
    return with_pydantic(typed_dict_for_pydantic(name, hints), output=False, defaults=defaults)


def infer_output(annotation: Any, *, enveloped: bool = False) -> OutputContract | None:
    """Return the contract of the data returned with this return type, or None if nothing is known.

    ``enveloped``: it is the type of an envelope's ``data``. Raises `UnsupportedTypeError`.
    """
    members = [member for member in members_of(annotation) if member is not types.NoneType]
    if not members or any(says_nothing(member) for member in members):
        return None
    contracts = [_data_contract(member, enveloped=enveloped) for member in members]
    known = [each for each in contracts if each is not None]
    if len(known) < len(contracts):
        return None
    schema = known[0].schema if len(known) == 1 else _any_of([each.schema for each in known])
    write = known[0].write if len(known) == 1 else _writer(members, known)
    if len(members) < len(members_of(annotation)):  # None means no data
        schema = _any_of([schema, {"type": "object", "maxProperties": 0}])
    return OutputContract(schema, write)


def _writer(members: Sequence[Any], contracts: Sequence[OutputContract]) -> Callable[[object], Any]:
    """Return the writer for a value of one of several types: pydantic knows which of its own it is."""
    own = [tp for tp, each in zip(members, contracts, strict=True) if each.write is not to_plain]
    if not own:
        return to_plain
    if len(own) == 1:
        chosen = next(each.write for each in contracts if each.write is not to_plain)
    else:
        chosen = with_pydantic(union_of(tuple(own)), output=True).write or to_plain
    others = tuple(
        tp
        for each, contract in zip(members, contracts, strict=True)
        if contract.write is to_plain and isinstance(tp := get_origin(each) or each, type) and tp not in _JSON_TYPES
    )
    return lambda value: to_plain(value) if isinstance(value, others) else chosen(value)


def explicit_input(given: Any) -> TypeContract | None:
    """Return the contract of a user's input schema: a JSON Schema, or a type."""
    if isinstance(given, str):
        raise UnsupportedTypeError(f"it must be a JSON Schema (a dict) or a type, not the text {shorten(given)!r}")
    if not is_mapping(given):
        return infer_input(given)
    schema = written_schema(given)

    def check(value: object) -> object:
        schema.check(value)
        return value

    return TypeContract(schema.json, check)


def explicit_output(given: Any) -> OutputContract | None:
    """Return the contract of a user's output schema: a JSON Schema, or a type."""
    if is_mapping(given):
        return OutputContract(written_schema(given).json)
    return infer_output(given)


def explicit_event(given: Any) -> JsonSchema:
    """Return a user's schema of an event: a JSON Schema, or a type."""
    if is_mapping(given):
        return written_schema(given).json
    if says_nothing(given):
        return {"type": "object"}
    schema = _fields_of_named_tuple(given).schema if is_named_tuple(given) else by_engine(given, output=True).schema
    if not _may_be_object(schema):
        raise UnsupportedTypeError(f"an event's payload is always an object, but {name_of(given)} is not")
    return schema


def _may_be_object(schema: JsonSchema) -> bool:
    return schema.get("type", "object") == "object" and schema.keys().isdisjoint({"enum", "const"})


# ------------------------------------------------------------------------------------------------------ output


def is_data_type(annotation: Any) -> bool:
    """Whether every dict of this return type is data: a TypedDict with fields other than an envelope's."""
    members = [_bare_type(member) for member in members_of(_bare_type(annotation)) if member is not types.NoneType]
    typed = [_typed_dict_fields(member) for member in members]
    return any(typed) and not any(
        _is_envelope_type(fields) or (not fields and says_nothing(member))
        for member, fields in zip(members, typed, strict=True)
    )


def _bare_type(annotation: Any) -> Any:
    """Return the type behind an ``Annotated``, a ``type`` statement or a generic alias."""
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


def _data_contract(annotation: Any, *, enveloped: bool) -> OutputContract | None:
    fields = _typed_dict_fields(annotation)
    if _is_envelope_type(fields) and not enveloped:
        return infer_output(without_requiredness(fields["data"]), enveloped=True) if "data" in fields else None
    if is_named_tuple(annotation) and not enveloped:  # inside the envelope it is an array, see `to_plain`
        return _of_named_tuple(annotation)
    contract = by_engine(annotation, output=True)
    write = contract.write or to_plain
    schema = contract.schema
    if schema.get("type") == "object":
        return OutputContract(schema, write)
    if not schema:  # a serializer without a return type
        return OutputContract({"type": "object"}, write)
    definitions = schema.pop("$defs", None)
    wrapped: JsonSchema = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
    wrapped, _ = announceable({**wrapped, "$defs": definitions} if definitions else wrapped)
    return OutputContract(wrapped, write)


def _of_named_tuple(annotation: Any) -> OutputContract:
    contract = _fields_of_named_tuple(annotation, output=True)
    write = contract.write
    if write is None:
        return OutputContract(contract.schema)

    def write_fields(value: Any) -> Any:
        return write(value._asdict() if is_named_tuple(value) else value)

    return OutputContract(contract.schema, write_fields)


def _any_of(schemas: list[JsonSchema]) -> JsonSchema:
    """Join schemas; if two give different meanings to one name, the later one's gets a number."""
    definitions: dict[str, Any] = {}
    alternatives: list[JsonSchema] = []
    for schema in schemas:
        body = schema
        for name, definition in as_object(schema.get("$defs")).items():
            if definitions.get(name, definition) != definition:
                body = _renamed(body, name, f"{name}_{len(definitions)}")
        definitions.update(body.get("$defs", {}))
        alternatives.append({key: value for key, value in body.items() if key != "$defs"})
    joined: JsonSchema = {"type": "object", "anyOf": alternatives}
    return {**joined, "$defs": definitions} if definitions else joined


def _renamed(schema: JsonSchema, old: str, new: str) -> JsonSchema:
    text = msgspec.json.encode(schema).decode().replace(f'"#/$defs/{old}"', f'"#/$defs/{new}"')
    renamed: JsonSchema = msgspec.json.decode(text)
    renamed["$defs"][new] = renamed["$defs"].pop(old)
    return renamed


def _fields_of_named_tuple(annotation: Any, *, output: bool = False) -> TypeContract:
    """Return the contract of a NamedTuple as an object."""
    record = record_of(annotation)
    assert record is not None  # noqa: S101 - the caller has checked
    if needs_pydantic(annotation):
        contract = infer_fields(record.name, {each.name: (each.type, each.default) for each in record.fields})

        def convert(value: object) -> Any:
            return record.make(**contract.convert(value))

        return msgspec.structs.replace(contract, convert=convert)
    return with_msgspec(replace(record, array=False, closed=False), output=output)
