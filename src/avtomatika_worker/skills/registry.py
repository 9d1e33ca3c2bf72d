"""The skills of a worker, by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from avtomatika_worker.errors import SkillDefinitionError
from avtomatika_worker.skills.binding import Injectables, UnresolvedReferenceError
from avtomatika_worker.skills.contract import SkillContract
from avtomatika_worker.skills.model import ModelUse
from avtomatika_worker.skills.per_model import variants
from avtomatika_worker.skills.skill import Skill, SkillDefinition


class SkillRegistry:
    """Holds compiled skills. Those with type hints that are defined later in the module wait until `freeze`."""

    def __init__(self, injectables: Injectables) -> None:
        self._injectables = injectables
        self._definitions: dict[str, SkillDefinition] = {}
        self._skills: dict[str, Skill] = {}
        self._known = 0

    def add(self, definition: SkillDefinition) -> None:
        """Register and compile a skill. Raises `SkillDefinitionError`, also for a name that is already taken."""
        taken = self._definitions.get(definition.name)
        if taken is definition:  # from a blueprint both included and found in the skills directory
            return
        if taken is not None:
            places = f"{taken.place} and {definition.place}"
            raise SkillDefinitionError(definition.name, f"the name is taken twice, by {places}")
        self._forget_if_outdated()
        with contextlib.suppress(UnresolvedReferenceError):  # retried in `freeze`
            self._skills[definition.name] = definition.compile(self._injectables)
        self._definitions[definition.name] = definition

    def freeze(self) -> None:
        """Compile the skills that could not be compiled earlier. Raises `SkillDefinitionError`."""
        self._forget_if_outdated()
        for definition in list(self._definitions.values()):
            skill = self._compiled(definition)
            if definition.variant_of is None and skill.uses is not None:
                self._add_variants(definition, skill.uses)

    def _compiled(self, definition: SkillDefinition) -> Skill:
        skill = self._skills.get(definition.name)
        if skill is None:
            skill = self._skills[definition.name] = definition.compile(self._injectables)
        return skill

    def _add_variants(self, definition: SkillDefinition, uses: ModelUse) -> None:
        """Register a skill of its own for each model that is announced."""
        for variant in variants(definition, uses):
            taken = self._definitions.get(variant.name)
            if taken is not None and taken.variant_of != definition.name:
                raise SkillDefinitionError(
                    variant.name, f"the name is taken: skill {definition.name!r} is announced so for {variant.model!r}"
                )
            self._definitions[variant.name] = variant
            self._compiled(variant)

    def _forget_if_outdated(self) -> None:
        """Recompile the skills compiled before the registration of a resource that they may request."""
        if len(self._injectables) != self._known:
            self._known = len(self._injectables)
            self._skills.clear()

    def get(self, name: str) -> Skill | None:
        """Return the skill called ``name``."""
        return self._skills.get(name)

    def definition(self, name: str) -> SkillDefinition:
        """Return the definition of the skill called ``name``. Raises KeyError."""
        return self._definitions[name]

    def names(self) -> tuple[str, ...]:
        """The names, in the order of registration."""
        return tuple(self._definitions)

    def contracts(self) -> tuple[SkillContract, ...]:
        """The skills' contracts, in the order of registration."""
        return tuple(self._skills[name].contract for name in self._definitions if name in self._skills)

    def __iter__(self) -> Iterator[Skill]:
        return iter(self._skills.values())

    def __len__(self) -> int:
        return len(self._definitions)
