"""Params given one by one, as ``--param name=value``: read as the types that the skill's schema allows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from avtomatika_worker.cli.worker_app import UsageProblem
from avtomatika_worker.narrowing import is_dict, is_list
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.skills.contract import JsonSchema

_DEEPEST: Final = 8
_EVERY: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_WRITTEN: Final[Mapping[str, str]] = {
    "array": "an array such as '[1, 2]'",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": """an object such as '{"a": 1}'""",
}


class Named(NamedTuple):
    """A param from the command line."""

    name: str
    text: str


def split_fields(fields: Sequence[str]) -> list[Named]:
    """Split the arguments. Exits with code 2 for one without a name or an equals sign."""
    return list(map(_split, fields))


def _split(field: str) -> Named:
    name, equals, text = field.partition("=")
    if not (name and equals):
        raise UsageProblem(f"--param {field!r}: write it as name=value, such as --param width=100")
    return Named(name, text)


def typed_fields(fields: Sequence[Named], schema: JsonSchema | None) -> dict[str, Any]:
    """Return the params, each as a type that the schema allows. Exits with code 2 if one cannot be converted.

    A param that the schema does not list is JSON if possible, else a string. If a name occurs twice, the last one wins.
    """
    whole = schema or {}
    return {each.name: _read(each, _schemas_of_field(each.name, whole), whole) for each in fields}


def _read(field: Named, schemas: Sequence[Any], whole: JsonSchema) -> Any:
    """Read a field as one of the types that its schemas allow: all of them if there is none."""
    types = frozenset[str]().union(*(_types(each, whole, 0) for each in schemas)) if schemas else _EVERY
    if types == frozenset({"string"}):
        return field.text
    try:
        value = json.loads(field.text)
    except (ValueError, RecursionError):
        value = field.text
    # A quoted string may be meant as a JSON string only if anything is allowed.
    if isinstance(value, str):
        if "string" in types:
            return value if types == _EVERY else field.text
    elif not types.isdisjoint(_types_of_value(value)):
        may_be_text = types != _EVERY and "string" in types
        return field.text if may_be_text and _loses_digits(value, field.text, any(map(_is_decimal, schemas))) else value
    if "string" in types:
        return field.text
    allowed = " or ".join(_WRITTEN[each] for each in sorted(types - _implied(types)))
    raise UsageProblem(f"--param {field.name}={field.text!r:.80}: it should be {allowed or 'left out'}")


def _loses_digits(value: object, text: str, is_decimal: bool) -> bool:
    """Whether a number is not what its text says. For a decimal, 1.10 says more than 1.1."""
    if not isinstance(value, float):
        return False
    return str(value) != text if is_decimal else Decimal(text) != Decimal(str(value))


def _is_decimal(schema: Any) -> bool:
    options = as_object(schema).get("anyOf") or ()
    return as_object(schema).get("format") == "decimal" or any(map(_is_decimal, options))


def _implied(types: frozenset[str]) -> frozenset[str]:
    return frozenset({"integer"}) if "number" in types else frozenset()


def _types_of_value(value: object) -> frozenset[str]:
    """Return the JSON types that a value has."""
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case str():
            return frozenset({"string"})
        case int():
            return frozenset({"integer"})
        case float():
            return frozenset({"integer", "number"} if value.is_integer() else {"number"})
        case dict():
            return frozenset({"object"})
        case _:
            return frozenset({"array"})


def _schemas_of_field(name: str, whole: JsonSchema) -> list[Any]:
    """Return the schemas of a field of the params; none if the schema does not list it."""
    return [each[name] for each in _properties(whole, whole, 0) if name in each]


def _properties(schema: JsonSchema, whole: JsonSchema, depth: int) -> Iterator[dict[str, Any]]:
    """Yield the properties of an object, and of each schema that it refers to or chooses from."""
    if depth > _DEEPEST:
        return
    yield as_object(schema.get("properties"))
    if isinstance(reference := schema.get("$ref"), str):
        yield from _properties(_target(reference, whole), whole, depth + 1)
    for key in ("allOf", "anyOf", "oneOf"):
        for each in schema.get(key) or ():
            yield from _properties(as_object(each), whole, depth + 1)


def _target(reference: str, whole: JsonSchema) -> JsonSchema:
    return as_object(as_object(whole.get("$defs")).get(reference.rpartition("/")[2]))


def _types(schema: Any, whole: JsonSchema, depth: int) -> frozenset[str]:
    """Return the types that a schema allows, each keyword narrowing them."""
    if not is_dict(schema) or depth > _DEEPEST:
        return _EVERY
    types = _EVERY
    if (kinds := schema.get("type")) is not None:
        types = frozenset(kinds if is_list(kinds) else [kinds])
        types |= frozenset({"integer"} if "number" in types else ())
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        types &= frozenset[str]().union(*map(_types_of_value, values))
    if isinstance(reference := schema.get("$ref"), str):
        types &= _types(_target(reference, whole), whole, depth + 1)
    for each in schema.get("allOf") or ():
        types &= _types(each, whole, depth + 1)
    for key in ("anyOf", "oneOf"):
        if options := schema.get(key):
            types &= frozenset[str]().union(*(_types(each, whole, depth + 1) for each in options))
    return types
