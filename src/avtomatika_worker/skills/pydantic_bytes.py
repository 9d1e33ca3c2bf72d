"""Makes pydantic read and write bytes as base64, as they are wherever it is not needed.

By itself it takes the text for the bytes. pydantic's own models stay as they are: their configuration says how.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, cast

from pydantic_core import PydanticCustomError, core_schema

from avtomatika_worker.narrowing import is_dict, is_list

ENCODED: Final = {"avtomatika_worker_base64": True}
"""Metadata of what is base64 in JSON, and of defaults with such parts."""

_DATA: Final = frozenset({"metadata", "default", "expected", "config", "serialization", "members"})
"""Keys of core schemas whose values are no schemas."""


def with_base64(node: Any) -> Any:
    """Return a core schema whose bytes are base64 in JSON; the very same one if it has none outside of models."""
    if is_list(node):
        items = list(map(with_base64, node))
        return items if any(new is not old for new, old in zip(items, node, strict=True)) else node
    if not is_dict(node) or _is_model(node):
        return node
    if node.get("type") == "bytes" and "serialization" not in node:
        return _encoded(node)
    data = _DATA if isinstance(node.get("type"), str) else frozenset[str]()
    changed = {key: item if key in data else with_base64(item) for key, item in node.items()}
    if all(changed[key] is item for key, item in node.items()):
        return node
    return {**changed, "metadata": ENCODED} if node.get("type") == "default" else changed


def _is_model(node: dict[str, Any]) -> bool:
    return node.get("type") == "model" or hasattr(node.get("cls"), "__is_pydantic_dataclass__")


def _encoded(node: dict[str, Any]) -> Any:
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
