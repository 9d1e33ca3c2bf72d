"""Objects instead of files at the edge of a task: URIs in its params become files, files in its data become URIs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from avtomatika_worker.errors import IntegrityMismatchError, PermanentError
from avtomatika_worker.files.objects import ObjectInfo, plain_etag
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.uris import is_object_uri

Place = tuple[str | int, ...]
"""Where a value is: the keys and indices that lead to it."""

DEEPEST: Final = 100
"""Levels below which no file is looked for."""


def may_name_objects(value: Any) -> bool:
    """Whether plain values could hold an object's URI: most tasks' do not, and find out here, quickly."""
    if isinstance(value, str):
        return "://" in value
    if isinstance(value, dict):
        return any(map(may_name_objects, cast("dict[str, Any]", value).values()))
    return isinstance(value, list) and any(map(may_name_objects, cast("Sequence[Any]", value)))


def uris_in(params: Mapping[str, Any]) -> dict[Place, str]:
    """Return every object's URI in the params, and where it is."""
    return {place: value for place, value in texts(params) if is_object_uri(value)}


def texts(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield every text in plain values, and where it is; keys are none."""
    if isinstance(value, str):
        yield place, value
    elif len(place) > DEEPEST:
        return
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield from texts(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(cast("Sequence[Any]", value)):
            yield from texts(item, (*place, index))


def replaced(value: Any, texts_at: Mapping[Place, object], place: Place = ()) -> Any:
    """Return plain values with others at some places, where texts were; the given ones are not changed."""
    if place in texts_at:
        return texts_at[place]
    if len(place) > DEEPEST:
        return value
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: replaced(item, texts_at, (*place, key)) for key, item in fields.items()}
    if isinstance(value, list):
        return [replaced(item, texts_at, (*place, index)) for index, item in enumerate(cast("Sequence[Any]", value))]
    return value


def name_of(place: Place) -> str:
    """Write a place as results tell it: ``picture``, ``pages[3].scan``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def expectation(uri: str, place: Place, metadata: Mapping[str, Any]) -> Callable[[ObjectInfo], None]:
    """Return what checks an object against the task's ``params_metadata``; it raises `IntegrityMismatchError`.

    Metadata is of this object when it has its URI; without any URI, when it has the name of the param.
    """
    entries = [entry for name, entry in metadata.items() if _is_about(entry, name, uri, place)]

    def check(info: ObjectInfo) -> None:
        found = {"size": info.size, "etag": plain_etag(info.etag)}
        for entry in entries:
            for fact, wanted in _facts(entry).items():
                if found[fact] is not None and found[fact] != wanted:
                    raise IntegrityMismatchError(
                        f"params.{name_of(place)}: {uri} has {fact} {found[fact]}, its metadata say {wanted}",
                        {"param": name_of(place), "uri": uri, "fact": fact, "expected": wanted, "found": found[fact]},
                    )

    return check


def facts_of(metadata: Any) -> dict[str, Any]:
    """Return ``size`` and ``etag`` of a dict, or of an object with such attributes."""
    return metadata if is_dict(metadata) else {name: getattr(metadata, name, None) for name in ("size", "etag")}


def verification(uri: str, metadata: Any) -> Callable[[ObjectInfo], None]:
    """Return what checks an object against ``size`` and ``etag`` of a dict or an object.

    It raises `IntegrityMismatchError`.
    """
    given = facts_of(metadata)

    def check(info: ObjectInfo) -> None:
        found = {"size": info.size, "etag": plain_etag(info.etag)}
        for fact, wanted in _facts(given).items():
            if found[fact] is not None and found[fact] != wanted:
                raise IntegrityMismatchError(
                    f"{uri} has {fact} {found[fact]}, its metadata say {wanted}",
                    {"uri": uri, "fact": fact, "expected": wanted, "found": found[fact]},
                )

    return check


def _is_about(entry: Any, name: str, uri: str, place: Place) -> bool:
    if not isinstance(entry, dict):
        return False
    reported = cast("dict[str, Any]", entry).get("uri")
    return reported == uri if reported else name == name_of(place)


def _facts(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that can be checked: zero and nothing are what one writes who does not know."""
    size, etag = entry.get("size"), entry.get("etag")
    facts: dict[str, Any] = {}
    if isinstance(size, int | float) and size > 0:
        facts["size"] = int(size)
    if isinstance(etag, str) and etag:
        facts["etag"] = plain_etag(etag)
    return facts


def paths_in(data: Mapping[str, Any], root: Path) -> dict[Place, str]:
    """Return every text in the data that is a path in the task's directory, and where it is."""
    prefix = f"{root}{os.sep}"
    return {place: text for place, text in texts(data) if text == str(root) or text.startswith(prefix)}


def existing(found: Mapping[Place, str], root: Path) -> dict[Place, str]:
    """Return paths in the task's directory relative to it.

    Raises `PermanentError` for one where nothing is: with the directory it would be gone. Blocks.
    """
    for place, text in found.items():
        if "\0" in text or not os.path.lexists(text):
            where = name_of(place)
            raise PermanentError(f"data.{where} names a file that does not exist: {text!r:.300}", {"path": where})
    return {place: text[len(f"{root}{os.sep}") :] for place, text in found.items()}
