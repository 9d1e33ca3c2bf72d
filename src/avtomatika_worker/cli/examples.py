"""Makes values that satisfy a JSON Schema, for commands that can be copied from the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from avtomatika_worker.narrowing import is_dict, is_list
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.validation import Schema

_DEEPEST: Final = 8
_MOST: Final = 50
"""Maximum number of values to try per schema."""

_FORMATS: Final[Mapping[str, str]] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "duration": "PT1M",
    "email": "ada@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "time": "12:00:00Z",
    "uri": "https://example.com",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
_TEXTS: Final = (
    *("text", "a", "A", "1", "ab", "AB", "12", "abc", "ABC", "123", "1234", "12345", "a1", "A1", "a-b", "a.b", "a_b"),
    *("#336699", "1.0.0", "1.0", "en-US", "en", "12:00", "a/b", "/a", "a.png", "+4912345678", "0x1f", "EUR", "100%"),
    *_FORMATS.values(),
)
"""Strings to try if a schema has a pattern."""


def valid_example(schema: JsonSchema | None) -> dict[str, Any] | None:
    """Return params that satisfy a skill's schema, with the required fields only; None if none were found."""
    whole = schema or {}
    checker = Schema(whole)
    if not whole:
        return {}
    found = islice(_values(whole, whole, 0), _MOST)
    return next((value for value in found if is_dict(value) and not checker.problems(value)), None)


def _values(schema: Any, whole: JsonSchema, depth: int) -> Iterator[Any]:
    """Yield values that may satisfy a schema, the likeliest first."""
    if not is_dict(schema):  # true
        yield "text"
        return
    if depth > _DEEPEST:
        return
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.rpartition("/")[2]
        target = whole if reference == "#" else as_object(as_object(whole.get("$defs")).get(name))
        yield from _values({**target, **{key: each for key, each in schema.items() if key != "$ref"}}, whole, depth + 1)
        return
    yield from _named(schema)
    for part in schema.get("allOf") or ():
        schema = {**_with_parts(schema, part, whole)}
    for key in ("anyOf", "oneOf"):
        for option in schema.get(key) or ():
            rest = {name: each for name, each in schema.items() if name != key}
            yield from _values(_with_parts(rest, option, whole), whole, depth + 1)
    yield from _of_type(schema, whole, depth)


def _named(schema: JsonSchema) -> Iterator[Any]:
    """Yield the values that a schema itself lists."""
    for key in ("default", "const"):
        if key in schema:
            yield schema[key]
    for key in ("examples", "enum"):
        if is_list(values := schema.get(key)):
            yield from values


def _with_parts(schema: JsonSchema, part: Any, whole: JsonSchema) -> JsonSchema:
    """Return the combination of a schema and another one that also applies."""
    more = as_object(part)
    if isinstance(reference := more.get("$ref"), str):
        more = {**as_object(as_object(whole.get("$defs")).get(reference.rpartition("/")[2])), **more}
        more.pop("$ref")
    properties = {**as_object(schema.get("properties")), **as_object(more.get("properties"))}
    required = [*(schema.get("required") or ()), *(more.get("required") or ())]
    return {**schema, **more, **({"properties": properties, "required": required} if properties else {})}


def _of_type(schema: JsonSchema, whole: JsonSchema, depth: int) -> Iterator[Any]:
    kinds = schema.get("type")
    for kind in kinds if is_list(kinds) else [kinds]:
        match kind or ("object" if "properties" in schema else None):
            case "object":
                yield from _objects(schema, whole, depth)
            case "array":
                yield from _arrays(schema, whole, depth)
            case "string":
                yield from _texts(schema)
            case "integer" | "number":
                yield from _numbers(schema)
            case "boolean":
                yield from (True, False)
            case "null":
                yield None
            case _:
                yield "text"


def _objects(schema: JsonSchema, whole: JsonSchema, depth: int) -> Iterator[dict[str, Any]]:
    """Yield objects: each required field has its first valid value."""
    properties, made = as_object(schema.get("properties")), dict[str, Any]()
    for name in schema.get("required") or ():
        field = properties.get(name, {})
        made[name] = _first_valid(field, whole, depth)
    yield made
    missing = int(schema.get("minProperties", 0)) - len(made)
    if missing > 0:
        others = [name for name in properties if name not in made] or [f"key{number}" for number in range(missing)]
        fill = as_object(schema.get("additionalProperties"))
        yield {**made, **{name: _first_valid(properties.get(name, fill), whole, depth) for name in others[:missing]}}


def _first_valid(field: Any, whole: JsonSchema, depth: int) -> Any:
    """Return the first value that satisfies a schema within another; if none does, the first value."""
    definitions = as_object(whole.get("$defs"))
    checker = Schema({**field, **({"$defs": definitions} if definitions else {})}) if is_dict(field) else None
    found = list(islice(_values(field, whole, depth + 1), _MOST)) or [None]
    return next((each for each in found if checker is None or not checker.problems(each)), found[0])


def _arrays(schema: JsonSchema, whole: JsonSchema, depth: int) -> Iterator[list[Any]]:
    first = [_first_valid(each, whole, depth) for each in schema.get("prefixItems") or ()]
    items, least = schema.get("items", {}), int(schema.get("minItems", 0))
    missing = max(0, least - len(first))
    if not missing:
        yield first
        return
    yield first + [_first_valid(items, whole, depth)] * missing
    yield first + _different(items, whole, depth, missing)  # uniqueItems


def _different(items: Any, whole: JsonSchema, depth: int, count: int) -> list[Any]:
    """Return values that differ: those that the schema suggests, else numbered ones."""
    found: list[Any] = []
    for value in islice(_values(items, whole, depth + 1), _MOST):
        if value not in found:
            found.append(value)
    if len(found) < count:
        start = _first_valid(items, whole, depth)
        counts = isinstance(start, int | float) and not isinstance(start, bool)
        found = [start + number if counts else f"{start}{number or ''}" for number in range(count)]
    return found[:count]


def _texts(schema: JsonSchema) -> Iterator[str]:
    least, most = int(schema.get("minLength", 0)), int(schema.get("maxLength", 10_000))
    if (known := _FORMATS.get(str(schema.get("format")))) is not None:
        yield known
    if "pattern" in schema:
        yield from _TEXTS
        yield from (character * max(least, 1) for character in "aA1")
    yield "text".ljust(least, "x")[:most]


def _numbers(schema: JsonSchema) -> Iterator[float]:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below, step = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"), schema.get("multipleOf")
    if step:
        start = max((each for each in (low, above) if each is not None), default=0)
        first = math.ceil(start / step) * step
        yield from (first, first + step, 0)
    yield from (value for value in (low, 1, 0) if value is not None)
    if above is not None:
        yield from (math.floor(above) + 1, above + 0.5 if below is None else (above + below) / 2)
    if high is not None:
        yield high
    if below is not None:
        yield from (math.ceil(below) - 1, below - 0.5)
