"""Decides whether a changed schema breaks those who relied on it.

Both directions ask the same question, whether one schema refuses what another allows: for params, the new one must
allow all that the old one did; for data, the old one must allow all that the new one does. Two conventions soften this:
fields may be added to data, and optional ones to params. Parts that cannot be compared (``not``, ``if``) count as
broken if they differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from avtomatika_worker.narrowing import is_dict, is_list
from avtomatika_worker.protocol.coerce import as_object

_Schema = Mapping[str, Any]
_ANYTHING: Final[_Schema] = {}
_LEAST: Final = (("minimum", "exclusiveMinimum"), ("minLength", ""), ("minItems", ""), ("minProperties", ""))
_MOST: Final = (("maximum", "exclusiveMaximum"), ("maxLength", ""), ("maxItems", ""), ("maxProperties", ""))
_SAME: Final = ("pattern", "format", "uniqueItems", "contentEncoding", "prefixItems", "allOf", "not", "if", "then")
_SAME_TOO: Final = ("else", "dependentRequired", "propertyNames", "patternProperties", "contains")
_SHOWN: Final = 60


def input_breaks(old: _Schema | None, new: _Schema | None, root: str = "params") -> list[str]:
    """Return which params allowed by ``old`` are refused by ``new``; None allows any."""
    return _Comparison(old or {}, new or {}, reads=True).breaks(root)


def output_breaks(old: _Schema | None, new: _Schema | None, root: str = "data") -> list[str]:
    """Return which data allowed by ``new`` was not allowed by ``old``; None allows any."""
    return _Comparison(new or {}, old or {}, reads=False).breaks(root)


class _Words(str):
    """A text that is not a schema's value."""

    __slots__ = ()


class _Comparison:
    """Finds what ``wide`` allows and ``narrow`` refuses. ``reads``: the schemas describe what a skill reads."""

    def __init__(self, wide: _Schema, narrow: _Schema, *, reads: bool) -> None:
        self._wide = wide
        self._narrow = narrow
        self._reads = reads
        self._open: set[tuple[object, object]] = set()

    def breaks(self, root: str) -> list[str]:
        """Return a sentence for each break, without duplicates."""
        return list(dict.fromkeys(self._compare(self._wide, self._narrow, root)))

    def _say(self, path: str, read: str, written: str) -> str:
        return f"{path} {read if self._reads else written}"

    def _compare(self, wide: _Schema, narrow: _Schema, path: str) -> Iterator[str]:
        pair = (wide.get("$ref", id(wide)), narrow.get("$ref", id(narrow)))
        if pair in self._open:  # a type that contains itself
            return
        self._open.add(pair)
        try:
            theirs = [_resolved(each, self._narrow) for each in _alternatives(narrow, self._narrow)]
            for ours in _alternatives(wide, self._wide):
                yield from self._fits_one(ours, theirs, path)
        finally:
            self._open.discard(pair)

    def _fits_one(self, wide: _Schema, narrow: list[_Schema], path: str) -> Iterator[str]:
        """Compare one alternative with the best of the others."""
        found = [list(self._compare_plain(wide, each, path)) for each in narrow]
        best = min(found, key=len) if found else list[str]()
        alike = [breaks for each, breaks in zip(narrow, found, strict=True) if _same_type(wide, each)]
        if not best:
            return
        if len(narrow) == 1 or alike:
            yield from min(alike or found, key=len)
            return
        kind = _type_name(wide)
        yield self._say(path, f"may no longer be {kind}", f"may be {kind} now")

    def _compare_plain(self, wide: _Schema, narrow: _Schema, path: str) -> Iterator[str]:
        if not _type_fits(wide, narrow):
            ours, theirs = _type_name(wide), _type_name(narrow)
            yield self._say(path, f"was {ours} and must be {theirs} now", f"was {theirs} and may be {ours} now")
            return
        if "enum" in narrow or "const" in narrow:
            yield from self._compare_values(wide, narrow, path)
        elif "enum" not in wide and "const" not in wide:
            yield from self._compare_bounds(wide, narrow, path)
        yield from self._compare_fields(wide, narrow, path)
        if "items" in narrow:
            yield from self._compare(_schema(wide.get("items")), _schema(narrow["items"]), f"{path}[]")

    def _compare_values(self, wide: _Schema, narrow: _Schema, path: str) -> Iterator[str]:
        allowed, given = _values(narrow), _values(wide)
        if given is None:
            listed = _short(allowed)
            yield self._say(path, f"is limited to {listed} now", f"is no longer limited to {listed}")
            return
        for value in given:
            if value not in (allowed or []):
                yield self._say(path, f"may no longer be {_short(value)}", f"may be {_short(value)} now")

    def _compare_bounds(self, wide: _Schema, narrow: _Schema, path: str) -> Iterator[str]:
        for keys, sign in ((_LEAST, 1), (_MOST, -1)):
            for inclusive, exclusive in keys:
                ours, theirs = _bound(wide, inclusive, exclusive, sign), _bound(narrow, inclusive, exclusive, sign)
                if theirs is not None and (ours is None or ours < theirs):
                    yield self._changed(path, inclusive, _reported(wide, inclusive), _reported(narrow, inclusive))
        step, other = narrow.get("multipleOf"), wide.get("multipleOf")
        if step is not None and (other is None or other % step):
            yield self._changed(path, "multipleOf", other, step)
        for key in (*_SAME, *_SAME_TOO):
            if key in narrow and narrow[key] != wide.get(key):
                yield self._changed(path, key, wide.get(key), narrow[key])

    def _changed(self, path: str, key: str, ours: object, theirs: object) -> str:
        old, new = (ours, theirs) if self._reads else (theirs, ours)
        before, after = (
            "none" if each is None else each if isinstance(each, _Words) else _short(each) for each in (old, new)
        )
        return f"{path}: {key} was {before} and is {after} now"

    def _compare_fields(self, wide: _Schema, narrow: _Schema, path: str) -> Iterator[str]:
        ours, theirs = as_object(wide.get("properties")), as_object(narrow.get("properties"))
        needed, given = set(narrow.get("required") or ()), set(wide.get("required") or ())
        gone = ours.keys() - theirs.keys() if self._reads else theirs.keys() - ours.keys()
        if self._reads and not theirs and narrow.get("additionalProperties") is not False:
            gone = set[str]()  # an object of any fields: these are read, too
        for name in sorted(gone):
            yield self._say(f"{path}.{name}", "is no longer read", "is no longer returned")
        for name in sorted(needed - given - gone):
            yield self._say(f"{path}.{name}", "is required now", "may be missing now")
        for name in (name for name in ours if name in theirs):
            yield from self._compare(_schema(ours[name]), _schema(theirs[name]), f"{path}.{name}")
        yield from self._compare_further(wide, narrow, path)

    def _compare_further(self, wide: _Schema, narrow: _Schema, path: str) -> Iterator[str]:
        """Compare the schemas of unnamed fields."""
        ours, theirs = wide.get("additionalProperties", True), narrow.get("additionalProperties", True)
        if is_dict(theirs):
            if ours is not False:
                yield from self._compare(_schema(ours), theirs, f"{path}.*")
        elif theirs is False and ours is not False and self._reads:
            yield f"{path}: unknown fields are refused now"


def _alternatives(schema: _Schema, whole: _Schema) -> list[_Schema]:
    """Return the alternatives of a schema, each of one type."""
    schema = _resolved(schema, whole)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            rest = {name: value for name, value in schema.items() if name != key}
            options = [_resolved(_schema(each), whole) for each in schema[key]]
            return [found for each in options for found in _alternatives({**rest, **each}, whole)]
    kinds = schema.get("type")
    if is_list(kinds):
        return [{**schema, "type": kind} for kind in kinds]
    return [schema]


def _resolved(schema: _Schema, whole: _Schema) -> _Schema:
    """Follow a reference into ``$defs``."""
    seen: set[str] = set()
    while isinstance(reference := schema.get("$ref"), str) and reference not in seen:
        seen.add(reference)
        target = as_object(as_object(whole.get("$defs")).get(reference.rpartition("/")[2]))
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        schema = {**target, **rest} if rest else target
    return schema


def _schema(value: object) -> _Schema:
    """Read a schema; ``true`` and a missing one allow anything."""
    return value if is_dict(value) else _ANYTHING


def _type_fits(wide: _Schema, narrow: _Schema) -> bool:
    theirs = narrow.get("type")
    if theirs is None or _same_type(wide, narrow) or (wide.get("type"), theirs) == ("integer", "number"):
        return True
    values = _values(wide)
    return wide.get("type") is None and values is not None and all(_json_type(value) == theirs for value in values)


def _same_type(wide: _Schema, narrow: _Schema) -> bool:
    return wide.get("type") == narrow.get("type")


def _type_name(schema: _Schema) -> str:
    values = _values(schema)
    return str(schema.get("type") or (_short(values) if values is not None else "anything"))


def _json_type(value: object) -> str:
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
    return "null" if value is None else names.get(type(value), "array")


def _values(schema: _Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _bound(schema: _Schema, inclusive: str, exclusive: str, sign: int) -> tuple[float, bool] | None:
    """Return the tightest bound, as a value that grows with tightness."""
    found = [
        (sign * schema[key], key == exclusive) for key in (inclusive, exclusive) if key and schema.get(key) is not None
    ]
    return max(found, default=None)


def _reported(schema: _Schema, inclusive: str) -> object:
    exclusive = schema.get("exclusive" + inclusive.capitalize())
    return schema.get(inclusive) if exclusive is None else _Words(f"{exclusive:g}, exclusively,")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
