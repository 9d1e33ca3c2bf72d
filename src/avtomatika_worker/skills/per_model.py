"""Announces a skill once for each model that it may run with (``announce="per_model"``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from avtomatika_worker.errors import SkillDefinitionError
from avtomatika_worker.skills.declaration import IDENTIFIER
from avtomatika_worker.skills.model import ModelUse
from avtomatika_worker.skills.skill import SkillDefinition

_NOT_ALLOWED: Final = re.compile(r"[^A-Za-z0-9_-]+")


def variants(definition: SkillDefinition, uses: ModelUse) -> Iterator[SkillDefinition]:
    """Yield the definitions to announce besides that of the skill. Raises `SkillDefinitionError`."""
    taken: dict[str, str] = {}
    for model in uses.loader.options.announced:
        name = variant_name(definition.name, model)
        if IDENTIFIER.fullmatch(name) is None:
            raise SkillDefinitionError(
                definition.name, f"as {name!r:.200} for one model its name is over 128 characters"
            )
        if name in taken:
            text = f"its models {taken[name]!r} and {model!r} are both announced as {name!r}: rename one"
            raise SkillDefinitionError(definition.name, text)
        taken[name] = model
        kind = definition.declaration.type or definition.name
        declaration = replace(definition.declaration, type=kind)
        yield replace(definition, name=name, declaration=declaration, model=model, variant_of=definition.name)


def variant_name(skill: str, model: str) -> str:
    """Return the name of a skill announced for one model; what names of skills may not contain becomes a hyphen."""
    return f"{skill}--{_NOT_ALLOWED.sub('-', model)}"
