"""Exchanges objects and files at a task's edge: URIs in its params become files, files in its data become URIs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.errors import IntegrityMismatchError, PermanentError
from avtomatika_worker.files.objects import ObjectInfo, plain_etag
from avtomatika_worker.narrowing import is_dict, is_list
from avtomatika_worker.protocol.uris import for_messages, is_object_uri

Place = tuple[str | int, ...]
"""A value's location: the keys and indices that lead to it."""

DEEPEST: Final = 100
"""The deepest level searched for files."""


def may_name_objects(value: Any) -> bool:
    """Whether plain values could contain an object's URI: a quick check, as most tasks' do not."""
    if isinstance(value, str):
        return "://" in value
    if is_dict(value):
        return any(map(may_name_objects, value.values()))
    return is_list(value) and any(map(may_name_objects, value))


def uris_in(params: Mapping[str, Any]) -> dict[Place, str]:
    """Return every object's URI in the params, by location."""
    return {place: value for place, value in texts(params) if is_object_uri(value)}


def texts(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield every text in plain values with its location, except keys."""
    if isinstance(value, str):
        yield place, value
    elif len(place) > DEEPEST:
        return
    elif is_dict(value):
        for key, item in value.items():
            yield from texts(item, (*place, key))
    elif is_list(value):
        for index, item in enumerate(value):
            yield from texts(item, (*place, index))


def replaced(value: Any, texts_at: Mapping[Place, object], place: Place = ()) -> Any:
    """Return a copy of plain values with the texts at some places replaced."""
    if place in texts_at:
        return texts_at[place]
    if len(place) > DEEPEST:
        return value
    if is_dict(value):
        return {key: replaced(item, texts_at, (*place, key)) for key, item in value.items()}
    if is_list(value):
        return [replaced(item, texts_at, (*place, index)) for index, item in enumerate(value)]
    return value


def name_of(place: Place) -> str:
    """Return a place as written in results: ``picture``, ``pages[3].scan``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def expectation(uri: str, place: Place, metadata: Mapping[str, Any]) -> Callable[[ObjectInfo], None]:
    """Return a check of an object against the task's ``params_metadata``; it raises `IntegrityMismatchError`.

    Metadata applies to this object if it has its URI or, without any URI, if it has the param's name.
    """
    entries = [entry for name, entry in metadata.items() if _is_about(entry, name, uri, place)]

    shown = for_messages(uri)

    def check(info: ObjectInfo) -> None:
        found = {"size": info.size, "etag": plain_etag(info.etag)}
        for entry in entries:
            for fact, wanted in _facts(entry).items():
                if found[fact] is not None and found[fact] != wanted:
                    raise IntegrityMismatchError(
                        f"params.{name_of(place)}: {shown} has {fact} {found[fact]}, its metadata says {wanted}",
                        {"param": name_of(place), "uri": shown, "fact": fact, "expected": wanted, "found": found[fact]},
                    )

    return check


def facts_of(metadata: Any) -> dict[str, Any]:
    """Return ``size`` and ``etag`` of a dict, or of an object with such attributes."""
    return metadata if is_dict(metadata) else {name: getattr(metadata, name, None) for name in ("size", "etag")}


def verification(uri: str, metadata: Any) -> Callable[[ObjectInfo], None]:
    """Return what checks an object against ``size`` and ``etag`` of a dict or an object.

    It raises `IntegrityMismatchError`.
    """
    given, shown = facts_of(metadata), for_messages(uri)

    def check(info: ObjectInfo) -> None:
        found = {"size": info.size, "etag": plain_etag(info.etag)}
        for fact, wanted in _facts(given).items():
            if found[fact] is not None and found[fact] != wanted:
                raise IntegrityMismatchError(
                    f"{shown} has {fact} {found[fact]}, its metadata say {wanted}",
                    {"uri": shown, "fact": fact, "expected": wanted, "found": found[fact]},
                )

    return check


def _is_about(entry: Any, name: str, uri: str, place: Place) -> bool:
    if not is_dict(entry):
        return False
    reported = entry.get("uri")
    return reported == uri if reported else name == name_of(place)


def _facts(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that can be checked: zero and empty values mean unknown."""
    size, etag = entry.get("size"), entry.get("etag")
    facts: dict[str, Any] = {}
    if isinstance(size, int | float) and size > 0:
        facts["size"] = int(size)
    if isinstance(etag, str) and etag:
        facts["etag"] = plain_etag(etag)
    return facts


def paths_in(data: Mapping[str, Any], root: Path) -> dict[Place, str]:
    """Return every text in the data that is a path in the task's directory, by location."""
    prefix = f"{root}{os.sep}"
    return {place: text for place, text in texts(data) if text == str(root) or text.startswith(prefix)}


def existing(found: Mapping[Place, str], root: Path) -> dict[Place, str]:
    """Return paths in the task's directory relative to it.

    Raises `PermanentError` for a path where nothing exists. Blocks.
    """
    for place, text in found.items():
        if "\0" in text or not os.path.lexists(text):
            where = name_of(place)
            raise PermanentError(f"data.{where} names a file that does not exist: {text!r:.300}", {"path": where})
    return {place: text[len(f"{root}{os.sep}") :] for place, text in found.items()}
