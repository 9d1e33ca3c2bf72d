"""Catches paths made from texts that the schema does not call paths, such as through a field's second alias.

File locations are known from the schema, before anything is converted (`places`); this closes the remaining gap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Any, Final

import msgspec

from avtomatika_worker.filepath import FilePath
from avtomatika_worker.narrowing import is_collection, is_dict, is_list, is_mapping
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.uri_params import PATHS, Place, places
from avtomatika_worker.skills.validation import InvalidValue, Problem, json_path

_PROBLEM: Final = (
    "it becomes a path although the input's schema does not say so (another name of the field?): it could be any"
    " file on this machine; use the field's name in the schema to pass a file"
)


def refusing_strays(convert: Callable[[object], Any], schemas: Iterable[JsonSchema]) -> Callable[[object], Any]:
    """Return ``convert`` with an `InvalidValue` for every text turned into a path that no schema calls one."""

    def converted(value: object) -> Any:
        result = convert(value)
        made = {_bare(str(path)) for path in paths_in(result)}
        if made:
            known = frozenset[Place]().union(*(places(schema, value, PATHS) for schema in schemas))
            strays = [place for place, text in _texts(value) if place not in known and _bare(text) in made]
            if strays:
                raise InvalidValue([Problem(json_path(place), _PROBLEM) for place in strays])
        return result

    return converted


def _bare(text: str) -> str:
    """Return a text in the form that no type changes: pydantic strips and changes case on request."""
    return str(PurePath(text.strip())).casefold()


def paths_in(value: object) -> Iterator[PurePath]:
    """Yield every path in a value, which may hold models, dataclasses and Structs."""
    seen: dict[int, object] = {}
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, PurePath | FilePath):
            yield each
        elif not isinstance(each, str | bytes) and id(each) not in seen:
            seen[id(each)] = each
            todo.extend(_inside(each))


_COLLECTIONS: Final = (list, tuple, set, frozenset)


def _inside(value: object) -> Iterable[object]:
    if is_mapping(value):
        return [*value, *value.values()]
    if is_collection(value) and isinstance(value, _COLLECTIONS):
        return value
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name, None) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, each.name, None) for each in dataclasses.fields(value)]
    return vars(value).values() if hasattr(type(value), "model_dump") else ()  # pydantic


def _texts(value: object, place: Place = ()) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif is_dict(value):
        for key, item in value.items():
            yield from _texts(item, (*place, key))
    elif is_list(value):
        for index, item in enumerate(value):
            yield from _texts(item, (*place, index))
