"""Where a skill wants the URI of an object itself, and not the file: what its input's schema says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from avtomatika_worker.protocol.uris import FORMAT
from avtomatika_worker.skills.contract import JsonSchema

Place = tuple[str | int, ...]
"""Where a value is: the keys and indices that lead to it."""

_UNIONS: Final = ("anyOf", "oneOf", "allOf")
_DEEPEST: Final = 100


def mentions_uris(schema: JsonSchema) -> bool:
    """Whether any text is to stay a URI."""
    return f'"{FORMAT}"'.encode() in msgspec.json.encode(schema)


def bare_places(schema: JsonSchema, value: Any) -> frozenset[Place]:
    """Return where in ``value`` the schema says ``{"format": "s3-uri"}``."""
    return frozenset(_places(schema, value, (), schema.get("$defs", {}), 0))


def _places(schema: Any, value: Any, place: Place, definitions: Mapping[str, Any], depth: int) -> Iterator[Place]:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return
    fields = cast("dict[str, Any]", schema)
    if isinstance(value, str) and fields.get("format") == FORMAT:
        yield place
    reference = fields.get("$ref")
    alternatives: list[Any] = [each for union in _UNIONS for each in fields.get(union, ())]
    if isinstance(reference, str):
        alternatives.append(definitions.get(reference.rpartition("/")[2]))
    for each in alternatives:
        yield from _places(each, value, place, definitions, depth + 1)
    for key, item, inner in _children(fields, value):
        yield from _places(inner, item, (*place, key), definitions, depth + 1)


def _children(schema: Mapping[str, Any], value: Any) -> Iterator[tuple[str | int, Any, Any]]:
    """Yield the values inside, each with its key and its schema."""
    if isinstance(value, dict):
        known: Mapping[str, Any] = schema.get("properties", {})
        for key, item in cast("dict[str, Any]", value).items():
            yield key, item, known.get(key, schema.get("additionalProperties"))
    elif isinstance(value, list):
        first: Sequence[Any] = schema.get("prefixItems", ())
        for index, item in enumerate(cast("Sequence[Any]", value)):
            yield index, item, first[index] if index < len(first) else schema.get("items")
