"""`SkillInfo`: what a skill announces, as an object that ``@worker.skill(info)`` accepts."""

from __future__ import annotations

from typing import Any, Final

import msgspec


class SkillInfo(msgspec.Struct):
    """What a skill announces about itself: ``@worker.skill(SkillInfo(name="resize", version="1.2.0"))``.

    A subclass may add fields, which are announced as metadata.
    """

    name: str
    type: str | None = None
    description: str | None = None
    version: str | None = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    events_schema: dict[str, dict[str, Any]] | None = None
    output_statuses: list[str] | None = None
    schema_dialect: str = "json-schema"
    properties: dict[str, Any] | None = None

    def matches(self, req: SkillInfo) -> bool:
        """Return whether this skill is what ``req`` asks for: the same name, and type and version if it has them."""
        return self.name == req.name and req.type in {None, self.type} and req.version in {None, self.version}


_OWN: Final = frozenset(SkillInfo.__struct_fields__)


def options_of(info: Any) -> dict[str, Any]:
    """Return the decorator options for an object with `SkillInfo`'s fields."""
    names = getattr(info, "__struct_fields__", None) or _OWN
    given = {name: getattr(info, name, None) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def is_info(value: object) -> bool:
    """Whether a value has `SkillInfo`'s fields: a `SkillInfo`, or another library's equivalent."""
    return isinstance(value, SkillInfo) or frozenset(getattr(value, "__struct_fields__", ())) >= _OWN
