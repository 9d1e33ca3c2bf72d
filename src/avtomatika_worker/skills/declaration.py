"""What the decorator's arguments declare of a skill: its name, texts, schemas and events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from avtomatika_worker.errors import SkillDefinitionError
from avtomatika_worker.narrowing import is_collection

IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Declaration:
    """The decorator's arguments."""

    type: str | None = None
    description: str | None = None
    version: str | None = None
    input_schema: Any = None
    output_schema: Any = None
    events: Mapping[str, Any] | None = None
    output_statuses: Iterable[str] | None = None
    properties: Mapping[str, Any] = field(default_factory=dict[str, Any])


def check_declaration(skill: Any, declarations: Mapping[str, Any]) -> None:
    """Raise `SkillDefinitionError` for a name, texts, statuses or events that cannot be."""
    if not isinstance(skill, str) or IDENTIFIER.fullmatch(skill) is None:
        raise SkillDefinitionError(str(skill), "a skill's name must match [A-Za-z0-9_-], 1 to 128 characters")
    kind = declarations["type"]
    if kind is not None and (not isinstance(kind, str) or IDENTIFIER.fullmatch(kind) is None):
        raise SkillDefinitionError(skill, f"type {kind!r} must match [A-Za-z0-9_-], 1 to 128 characters")
    _check_events(skill, declarations)
    for name in ("description", "version"):
        if not isinstance(declarations[name], str | None):
            raise SkillDefinitionError(skill, f"{name} must be a string, not {declarations[name]!r:.80}")
    statuses = declarations["output_statuses"]
    if statuses is not None and (
        isinstance(statuses, str)
        or not is_collection(statuses)
        or not all(isinstance(each, str) and each for each in statuses)
    ):
        raise SkillDefinitionError(skill, f"output_statuses must be a list of strings, not {statuses!r:.80}")


def _check_events(skill: str, declarations: Mapping[str, Any]) -> None:
    if declarations["events"] is not None and declarations["events_schema"] is not None:
        raise SkillDefinitionError(skill, "events and events_schema are the same: give only one")
    for name in ("events", "events_schema"):
        if declarations[name] is not None and not isinstance(declarations[name], Mapping):
            raise SkillDefinitionError(
                skill, f"{name} must map names of events to their schemas, as {{'alert': Alert}}"
            )
