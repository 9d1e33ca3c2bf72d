"""Finds the devices for skills with ``gpus``, or says what is missing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from avtomatika_worker.errors import SkillDefinitionError
from avtomatika_worker.observability.devices import Accelerator, NoDeviceError, accelerators
from avtomatika_worker.policy.device_shares import most_at_once
from avtomatika_worker.skills.skill import Skill

_log: Final = logging.getLogger("avtomatika_worker")


def find_devices(skills: Iterable[Skill], environ: Mapping[str, str]) -> tuple[Accelerator, ...]:
    """Return the devices that skill processes can be given: none if no skill asks for any.

    Raises `SkillDefinitionError` for a skill that asks for more than there are.
    """
    asking = [(skill.contract.name, skill.options.gpus) for skill in skills if skill.options.gpus is not None]
    if not asking:
        return ()
    try:
        devices = accelerators(environ)
    except NoDeviceError as error:
        skill, gpus = asking[0]
        raise SkillDefinitionError(skill, f"gpus={gpus:g}, and there is no GPU here. {error}") from error
    for skill, gpus in asking:
        if not most_at_once(gpus, [each.combinable for each in devices]):
            raise SkillDefinitionError(skill, f"gpus={gpus:g}, but there {_counted(devices)}")
    labels = ", ".join(each.label for each in devices)
    _log.info("devices for skills with gpus: %s", labels, extra={"action": "devices_found"})
    return devices


def _counted(devices: Sequence[Accelerator]) -> str:
    labels = ", ".join(each.label for each in devices)
    text = f"is 1 GPU: {labels}" if len(devices) == 1 else f"are {len(devices)} GPUs: {labels}"
    if all(each.combinable for each in devices):
        return text
    return f"{text}; a process can use one instance (MIG) only, and whole GPUs together"
