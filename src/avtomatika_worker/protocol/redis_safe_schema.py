"""Schemas in a form that survives in orchestrators on Redis.

They change a worker's record with Lua, which has one kind of table for arrays and objects: an empty object comes back
as an empty array. 1.0b30 then quarantines every job of the skill ("Expected `object | null`, got `array`"; tried). So
nothing announced has an empty object where the orchestrator reads one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from avtomatika_worker.narrowing import is_dict, is_list

_ANYTHING: Final = "anything"
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value maps names to schemas."""

_OTHER_MAPS: Final = frozenset({"dependentRequired"})
"""Keywords whose value may be an object that is not a schema; without them the schema allows the same."""

_DATA: Final = frozenset({"default", "const", "enum", "examples", "example"})
"""Keywords whose value is not a schema."""


def storable_schema(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return an equivalent schema without empty objects except in ``const``, ``enum`` and ``examples``."""
    return None if schema is None else _schema(schema)


def storable_schemas(schemas: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """Return schemas by name, each through `storable_schema`, or None if there are none."""
    return {name: _schema(each) for name, each in schemas.items()} if schemas else None


def _schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _MAPS | _OTHER_MAPS and is_dict(value) and not value:
            continue
        if keyword == "default" and _has_empty_object(value):
            continue  # the orchestrator fills in params with it; the worker fills in its own
        if keyword in _MAPS and is_dict(value):
            kept[keyword] = {name: _storable(each) for name, each in value.items()}
        else:
            kept[keyword] = value if keyword in _DATA else _storable(value)
    # A comment allows everything, as the empty schema does.
    return kept or {"$comment": _ANYTHING}


def _storable(value: Any) -> Any:
    if is_dict(value):
        return _schema(value)
    if is_list(value):
        return [_storable(each) for each in value]
    return value


def _has_empty_object(value: Any) -> bool:
    if is_dict(value):
        return not value or any(map(_has_empty_object, value.values()))
    return is_list(value) and any(map(_has_empty_object, value))
