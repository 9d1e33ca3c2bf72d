"""Changes how pydantic reads and writes what is not in its own models, by its core schemas.

Bytes are base64, as they are wherever pydantic is not needed; by itself, it takes the text for the bytes. What is only
iterable is read as a list. pydantic's own models stay as they are: their configuration says how.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final, cast

from pydantic_core import PydanticCustomError, core_schema

from avtomatika_worker.narrowing import is_dict, is_list

ENCODED: Final = {"avtomatika_worker_base64": True}
"""Metadata of what is base64 in JSON, and of defaults with such parts."""

_DATA: Final = frozenset({"metadata", "default", "expected", "config", "serialization", "members"})
"""Keys of core schemas whose values are no schemas."""

_Change = Callable[[dict[str, Any], bool], Any]
"""Takes a schema, and whether schemas inside have changed; returns it, or another one."""


def with_base64(schema: Any) -> Any:
    """Return a core schema whose bytes are base64 in JSON; the very same one if it has none outside of models."""
    return _changed(schema, _encoded)


def with_lists(schema: Any) -> Any:
    """Return a core schema, for reading, that makes lists of what is only iterable; the very same one if it has none.

    pydantic reads that late, while the skill runs, and it is empty the second time.
    """
    return _changed(schema, _listed)


def _changed(node: Any, change: _Change) -> Any:
    if is_list(node):
        items = [_changed(each, change) for each in node]
        return items if any(new is not old for new, old in zip(items, node, strict=True)) else node
    if not is_dict(node) or _is_model(node):
        return node
    data = _DATA if isinstance(node.get("type"), str) else frozenset[str]()
    inner = {key: item if key in data else _changed(item, change) for key, item in node.items()}
    same = all(inner[key] is item for key, item in node.items())
    return change(node if same else inner, not same)


def _is_model(node: dict[str, Any]) -> bool:
    return node.get("type") == "model" or hasattr(node.get("cls"), "__is_pydantic_dataclass__")


def _listed(node: dict[str, Any], _inside: bool) -> Any:
    return {**node, "type": "list"} if node.get("type") == "generator" else node


def _encoded(node: dict[str, Any], inside: bool) -> Any:
    if inside and node.get("type") == "default":
        return {**node, "metadata": ENCODED}
    if node.get("type") != "bytes" or "serialization" in node:
        return node
    text = core_schema.str_schema(metadata=ENCODED)
    return core_schema.no_info_before_validator_function(
        _decode,
        cast("core_schema.BytesSchema", {**node, "metadata": ENCODED}),
        serialization=core_schema.plain_serializer_function_ser_schema(_encode, return_schema=text, when_used="json"),
    )


def _decode(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise PydanticCustomError("base64", "Invalid base64 encoded string") from None


def _encode(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
