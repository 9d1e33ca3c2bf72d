"""Decides which process makes which resources, and which skills run in separate processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from avtomatika_worker.errors import ResourceError
from avtomatika_worker.execution.making import OneThread
from avtomatika_worker.execution.models import ModelPools
from avtomatika_worker.execution.processes.process_spec import ProcessSpec, make_process_spec
from avtomatika_worker.execution.resources import Resources
from avtomatika_worker.skills.binding import Injectables
from avtomatika_worker.skills.model import ModelRegistry
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.skills.resource import ResourceRegistry
from avtomatika_worker.skills.skill import Skill
from avtomatika_worker.skills.type_hints import name_of
from avtomatika_worker.world import REAL, World


class ResourcePlan(msgspec.Struct, frozen=True):
    """The needs of a worker's skills: resources here, and specs of the processes that skills run in."""

    resources: Resources
    models: ModelPools
    thread: OneThread
    process_specs: Mapping[float, ProcessSpec]
    """By how many devices (``gpus``) the skills ask for; 0 for none. Each kind of process has what its skills need."""


def plan_resources(
    worker_id: str,
    skills: SkillRegistry,
    resources: ResourceRegistry,
    models: ModelRegistry,
    injectables: Injectables,
    packages: Mapping[str, Path],
    given: Mapping[Any, object],
    world: World = REAL,
) -> ResourcePlan:
    """Return it; nothing is made yet. ``given`` are values in place of resources, by type.

    Raises `SkillDefinitionError` and `ResourceError` for what a process could not import, or nobody could make.
    """
    resources.check()
    _check_given(given, (*resources.kinds, *models.kinds))
    for_processes = {kind for skill in skills if skill.options.in_process for kind in skill.injects}
    for_others = {kind for skill in skills if not skill.options.in_process for kind in skill.injects}
    # Resources that no skill requests are made too: their side effects may be the point.
    asked = {each.kind for each in resources.needed_for(for_processes | for_others)}
    here = resources.needed_for([kind for kind in resources.kinds if kind in for_others or kind not in asked], given)
    process_specs = _process_specs(worker_id, skills, resources, models, packages, given)
    thread = OneThread()
    wanted = {each.kind: given[each.kind] for each in here if each.kind in given}
    loaders = [each for each in models.loaders if each.kind in for_others or each.kind not in for_processes]
    pools = ModelPools(loaders, given, world=world)
    return ResourcePlan(Resources(here, injectables, thread, wanted, world), pools, thread, process_specs)


def _process_specs(
    worker_id: str,
    skills: SkillRegistry,
    resources: ResourceRegistry,
    models: ModelRegistry,
    packages: Mapping[str, Path],
    given: Mapping[Any, object],
) -> dict[float, ProcessSpec]:
    groups: dict[float, list[Skill]] = {}
    for skill in skills:
        if skill.options.in_process:
            groups.setdefault(skill.options.gpus or 0, []).append(skill)
    specs: dict[float, ProcessSpec] = {}
    for gpus, group in sorted(groups.items()):
        injected = {kind for skill in group for kind in skill.injects}
        below = {each.kind for each in resources.needed_for(injected, given)}
        needed = resources.needed_for([kind for kind in resources.kinds if kind in below], given)
        loaders = [each for each in models.loaders if each.kind in injected]
        definitions = [skills.definition(skill.contract.name) for skill in group]
        specs[gpus] = make_process_spec(worker_id, definitions, needed, given, packages, loaders)
    return specs


def _check_given(given: Mapping[Any, object], kinds: Sequence[Any]) -> None:
    for kind in given:
        if kind not in kinds:
            known = ", ".join(map(name_of, kinds)) or "none"
            raise ResourceError(name_of(kind), f"there is no such resource to replace (resources are: {known})")
