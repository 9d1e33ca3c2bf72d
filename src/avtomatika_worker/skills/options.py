"""The decorator's keywords besides its options: a skill's metadata, unless it is a misspelled option."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from avtomatika_worker.errors import SkillDefinitionError
from avtomatika_worker.narrowing import is_mapping
from avtomatika_worker.protocol.coerce import as_object

DECLARED: Final = ("type", "description", "version", "input_schema", "output_schema", "output_statuses")
"""Options that determine the announcement and are read one by one."""

_BEHAVIOR: Final = (
    "timeout",
    "max_concurrent",
    "prefetch",
    "executor",
    "max_tasks_per_child",
    "cancel_grace",
    "expected_seconds",
    "on_stale",
    "model_from",
    "batch",
    "gpus",
)
_HOLDERS: Final = ("metadata", "properties")
_DIALECT: Final = "json-schema"
_MARKETPLACE: Final = ("price",)  # must not be misspelled: cost-based dispatch uses it

_OPTIONS: Final = ("name", *DECLARED, "events", "events_schema", *_BEHAVIOR, *_HOLDERS, *_MARKETPLACE)
_DISTINCT: Final = (*_BEHAVIOR, "input_schema", "output_schema", "events_schema", "output_statuses")
"""Names that suggest an option anywhere in a keyword, as in ``timeout_seconds``."""

_COMMON: Final = ("gpu",)
"""What is metadata by long use, however near an option's name it is."""

_NEAR: Final = 0.84


def metadata_of(skill: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return a skill's metadata, as plain values: other keywords, ``metadata`` and ``properties``.

    Raises `SkillDefinitionError` for a keyword that looks like an option, for one given twice, and for values that are
    not JSON-able.
    """
    dialect = given.pop("schema_dialect", None)
    if dialect not in {None, _DIALECT}:
        raise SkillDefinitionError(skill, f"schema_dialect must be {_DIALECT!r}, not {dialect!r:.80}")
    held = [(holder, _held(skill, holder, given.pop(holder))) for holder in _HOLDERS if given.get(holder) is not None]
    for holder in _HOLDERS:
        given.pop(holder, None)
    for name in given:
        _check_spelling(skill, name)
    found = dict(given)
    for holder, values in held:
        twice = ", ".join(repr(name) for name in values if name in found)
        if twice:
            raise SkillDefinitionError(skill, f"{holder} and other arguments both give {twice}: give it once")
        found.update(values)
    try:
        return as_object(msgspec.to_builtins(found))
    except (TypeError, ValueError, RecursionError) as error:
        names = ", ".join(found)
        raise SkillDefinitionError(skill, f"the metadata ({names}) must be JSON-able: {error}") from error


def _held(skill: str, holder: str, value: object) -> dict[str, Any]:
    if not is_mapping(value) or not all(isinstance(key, str) for key in value):
        raise SkillDefinitionError(skill, f"{holder} must be a dict such as {{'price': 0.5}}, not {value!r:.80}")
    return dict(value)


def _check_spelling(skill: str, name: str) -> None:
    """Raise `SkillDefinitionError` for a keyword that is almost an option's name."""
    near = None if name in (*_OPTIONS, *_COMMON) else _nearest(name)
    if near is not None:
        hint = f"if it is metadata, write metadata={{{name!r}: …}}"
        raise SkillDefinitionError(skill, f"there is no option {name!r}; did you mean {near!r}? ({hint})")


def _nearest(name: str) -> str | None:
    letters = _letters(name)
    for option in _DISTINCT:
        if _letters(option) in letters:
            return option
    for option in _OPTIONS:
        if sorted(_letters(option)) == sorted(letters):
            return option
    import difflib  # for a mistake that hardly anybody makes

    options = {_letters(option): option for option in _OPTIONS}
    close = difflib.get_close_matches(letters, options, n=1, cutoff=_NEAR)
    return options[close[0]] if close else None


def _letters(name: str) -> str:
    return name.replace("_", "").lower()
