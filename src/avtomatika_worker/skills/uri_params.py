"""Finds the texts in a task's params that the input's schema marks as URIs or files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from avtomatika_worker.narrowing import is_dict, is_list
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.protocol.uris import FORMAT
from avtomatika_worker.skills.contract import JsonSchema

Place = tuple[str | int, ...]
"""A value's location: the keys and indices that lead to it."""

URIS: Final = frozenset({FORMAT})
"""Formats of texts that stay URIs."""

PATHS: Final = frozenset({"path", "file-path", "directory-path"})
"""Formats of texts that become paths: ours, and pydantic's for FilePath, DirectoryPath and the like."""

KEY: Final = "\0key"
"""Marks the place of a key, at its end."""

_UNIONS: Final = ("anyOf", "oneOf", "allOf")
_BRANCHES: Final = ("if", "then", "else")


def mentions(schema: JsonSchema, formats: frozenset[str]) -> bool:
    """Whether a schema has texts of one of these formats."""
    written = msgspec.json.encode(schema)
    return any(f'"{each}"'.encode() in written for each in formats)


def places(schema: JsonSchema, value: Any, formats: frozenset[str]) -> frozenset[Place]:
    """Return where in ``value`` the schema gives a text one of these formats.

    In a union, a single member with the format is enough. The place of an object's key ends in `KEY`.
    """
    found: set[Place] = set()
    seen: set[tuple[int, Place]] = set()
    todo: list[tuple[Any, Any, Place]] = [(schema, value, ())]
    while todo:
        fields, item, place = todo.pop()
        if not is_dict(fields) or (id(fields), place) in seen:
            continue  # recursive types return to the same place
        seen.add((id(fields), place))
        if _is_text(item) and fields.get("format") in formats:
            found.add(place)
        if "propertyNames" in fields and _format_of_keys(fields, schema) in formats:
            found.update((*place, key, KEY) for key in as_object(item))
        todo.extend((each, item, place) for each in _alternatives(fields, schema))
        todo.extend((inner, each, (*place, key)) for key, each, inner in _children(fields, item))
    return frozenset(found)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _format_of_keys(fields: Mapping[str, Any], root: JsonSchema) -> object:
    names = fields.get("propertyNames")
    while is_dict(names) and "$ref" in names:
        names = _referred(names["$ref"], root)
    return names.get("format") if is_dict(names) else None


def _alternatives(fields: Mapping[str, Any], root: JsonSchema) -> Iterator[Any]:
    """Yield the other schemas that apply, or may apply, to the same value."""
    for union in _UNIONS:
        yield from fields.get(union, ())
    for branch in _BRANCHES:
        yield fields.get(branch)
    if "$ref" in fields:
        yield _referred(fields["$ref"], root)


def _referred(reference: object, root: JsonSchema) -> Any:
    """Return the target of a reference within the schema, or None for any other."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if is_dict(found):
            found = found.get(name)
        elif is_list(found) and name.isdecimal():
            found = found[int(name)] if int(name) < len(found) else None
        else:
            return None
    return found


def _children(schema: Mapping[str, Any], value: Any) -> Iterator[tuple[str | int, Any, Any]]:
    """Yield the inner values, each with its key and its schema."""
    if is_dict(value):
        known: Mapping[str, Any] = schema.get("properties", {})
        patterns: Mapping[str, Any] = schema.get("patternProperties", {})
        for key, item in value.items():
            yield key, item, known.get(key, schema.get("additionalProperties"))
            for pattern in patterns.values():  # whichever matches: treating one text too many as a path does no harm
                yield key, item, pattern
    elif is_list(value):
        first: Sequence[Any] = schema.get("prefixItems", ())
        for index, item in enumerate(value):
            yield index, item, first[index] if index < len(first) else schema.get("items")
