"""Schemas as they survive in orchestrators on Redis.

Those change a worker's record with Lua, which has one kind of table for arrays and objects: an empty object comes back
as an empty array. 1.0b30 then quarantines every job of the skill ("Expected `object | null`, got `array`"; tried). So
nothing announced holds an empty object where the orchestrator reads one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

_ANYTHING: Final = "anything"
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value maps names to schemas."""

_OTHER_MAPS: Final = frozenset({"dependentRequired"})
"""Keywords whose value may be an object that is no schema; without it the schema allows the same."""

_DATA: Final = frozenset({"default", "const", "enum", "examples", "example"})
"""Keywords whose value is no schema."""


def storable_schema(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a schema that allows the same, without empty objects but in ``const``, ``enum`` and ``examples``."""
    return None if schema is None else _schema(schema)


def storable_schemas(schemas: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """Return schemas by name, each `storable_schema`; None instead of none."""
    return {name: _schema(each) for name, each in schemas.items()} if schemas else None


def _schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for keyword, value in schema.items():
        if value == {} and isinstance(value, dict) and keyword in _MAPS | _OTHER_MAPS:
            continue
        if keyword == "default" and _has_empty_object(value):
            continue  # the orchestrator fills params in with it; the worker fills in its own
        if keyword in _MAPS and isinstance(value, dict):
            named = cast("dict[str, Any]", value)
            kept[keyword] = {name: _storable(each) for name, each in named.items()}
        else:
            kept[keyword] = value if keyword in _DATA else _storable(value)
    # A comment allows everything, as the empty schema does.
    return kept or {"$comment": _ANYTHING}


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return _schema(cast("dict[str, Any]", value))
    if isinstance(value, list):
        return [_storable(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _has_empty_object(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or any(map(_has_empty_object, cast("dict[str, Any]", value).values()))
    return isinstance(value, list) and any(map(_has_empty_object, cast("Sequence[Any]", value)))
