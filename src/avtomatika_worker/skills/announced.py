"""Corrects a schema made from type hints before it is announced: it must say what can really arrive and be sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.round_trips import difference
from avtomatika_worker.skills.type_hints import MISSING, is_named_tuple
from avtomatika_worker.skills.uri_params import PATHS, places
from avtomatika_worker.skills.validation import Schema, without_nulls

_MAPS: Final = ("properties", "patternProperties", "$defs", "dependentSchemas")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE: Final = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")


def announceable(schema: JsonSchema) -> tuple[JsonSchema, frozenset[str]]:
    """Correct ``schema`` in place; return it and the names of the fields that it no longer requires.

    Objects on the wire have no nulls: a field that may be null is one that may be absent. A default that cannot be
    sent, violates its own schema, hides a secret or names a file is removed: a worker that announced the first kind
    would never be registered, and orchestrators fill in params with the others.
    """
    definitions = as_object(schema.get("$defs"))
    relaxed: set[str] = set()
    for node in list(_schemas(schema)):
        if "default" in node:
            node["default"] = without_nulls(node["default"])
            if not _is_true_default(node, definitions):
                del node["default"]
        properties = as_object(node.get("properties"))
        required: list[str] = node.get("required", [])
        nullable = {name for name in required if _takes_null(properties.get(name), definitions)}
        if nullable:
            node["required"] = [name for name in required if name not in nullable]
            relaxed |= nullable
    return schema, frozenset(relaxed)


def announced_default(default: Any, write: Callable[[Any], Any], read: Callable[[Any], Any] | None = None) -> Any:
    """Return a field's default as JSON, or `MISSING` if it cannot be announced.

    ``read`` makes the field's value of JSON. An orchestrator fills params in with what is announced, so it must become
    the very default again: ``mode=Mode.FAST`` without a type hint would become a text.
    """

    def written() -> Any:
        json = write([default])[0] if is_named_tuple(default) else write(default)
        same = read is None or difference(read(without_nulls(json)), default) is None
        return json if same and default is not msgspec.UNSET else MISSING

    # It cannot be sent, or a user's constructor refuses what is sent.
    return attempted(written, lambda _: MISSING)


def take_numbers_for_decimals(schema: JsonSchema) -> JsonSchema:
    """Make ``schema`` accept a number for a decimal too; return it."""
    for node in list(_schemas(schema)):
        if node.get("format") == "decimal" and node.get("type") == "string":
            node["type"] = ["string", "number"]
    return schema


def _schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all its subschemas."""
    if not is_dict(node):
        return
    yield node
    inner: list[Any] = [node.get(key) for key in _SINGLE]
    for key in _MAPS:
        inner.extend(as_object(node.get(key)).values())
    for key in _LISTS:
        inner.extend(node.get(key) or ())
    for each in inner:
        yield from _schemas(each)


def _is_true_default(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    default = node["default"]
    if default is None or node.get("writeOnly") or _has_path(node, definitions):
        return False
    try:
        canonical_bytes({"default": default}, NEUTRAL)
    except UnsendableValueError:
        return False
    return _is_valid(default, node, definitions)


def _has_path(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether a default holds a path: filled in, it would be that of a file of the task's."""
    return bool(places({**node, "$defs": definitions}, node["default"], PATHS))


def _takes_null(node: Any, definitions: Mapping[str, Any]) -> bool:
    if not is_dict(node) or "const" in node:
        return node is True
    kind = node.get("type")
    if isinstance(kind, str):
        return kind == "null"
    return _is_valid(None, node, definitions)


def _is_valid(value: Any, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    alone = {key: each for key, each in node.items() if key != "default"}
    try:
        return not Schema({**alone, "$defs": definitions}).problems(value)
    except ValueError:  # the error is reported where the whole schema is compiled
        return True
