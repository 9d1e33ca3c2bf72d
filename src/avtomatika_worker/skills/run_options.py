"""The decorator's options for how a skill is run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from avtomatika_worker.errors import SkillDefinitionError
from avtomatika_worker.policy.device_shares import LEAST, MOST
from avtomatika_worker.skills.batch import Batch, check_batch, is_count

CANCEL_GRACE: Final = 5.0
"""Default time for a cancelled skill to end, in seconds; after that, its result no longer waits for it."""

_EXECUTORS: Final = (None, "thread", "process")
_ON_STALE: Final = ("stop", "finish")


@dataclass(frozen=True, slots=True)
class SkillOptions:
    """How to run a skill. Times are in seconds.

    ``timeout`` counts from the skill's start; ``cancel_grace`` is the time for a cancelled skill to end.
    ``expected_seconds`` is how long a task is expected to take; ``on_stale`` what to do when the orchestrator waits for
    another attempt at the same work: "stop" or "finish". ``prefetch`` is how many tasks are taken, and their files
    fetched, beyond the ``max_concurrent`` that run. ``batch``: the skill works on several tasks at once. ``gpus`` is
    how many devices a process of it is given, or which share of one.
    """

    timeout: float | None = None
    max_concurrent: int | None = None
    executor: str | None = None
    cancel_grace: float = CANCEL_GRACE
    max_tasks_per_child: int | None = None
    expected_seconds: float | None = None
    on_stale: str = "stop"
    prefetch: int = 0
    model_from: str | None = None
    """The param that names the model which it uses."""
    batch: Batch | None = None
    gpus: float | None = None

    @property
    def most_tasks(self) -> int | None:
        """How many tasks of it may be here at the same time; None for as many as there are slots."""
        if self.batch is not None and self.max_concurrent is None:
            return self.batch.slots
        return self.max_concurrent

    @property
    def in_process(self) -> bool:
        """Whether it runs in a separate process."""
        return self.executor == "process"


def check_options(skill: str, options: SkillOptions, *, awaits: bool) -> None:
    """Raise `SkillDefinitionError` for options that cannot be; ``awaits``: the skill is an ``async def``."""
    for name in ("timeout", "expected_seconds"):
        value = getattr(options, name)
        if value is not None and not _is_seconds(value, least=math.ulp(0.0)):
            raise SkillDefinitionError(skill, f"{name} must be a positive number of seconds, not {value!r}")
    if not _is_seconds(options.cancel_grace):
        raise SkillDefinitionError(skill, f"cancel_grace must be a number of seconds, not {options.cancel_grace!r}")
    if options.max_concurrent is not None and not is_count(options.max_concurrent):
        raise SkillDefinitionError(skill, f"max_concurrent must be a positive integer, not {options.max_concurrent!r}")
    if not is_count(options.prefetch, least=0):
        raise SkillDefinitionError(skill, f"prefetch must be an integer of 0 or more, not {options.prefetch!r}")
    if options.on_stale not in _ON_STALE:
        raise SkillDefinitionError(skill, f"on_stale must be 'stop' or 'finish', not {options.on_stale!r}")
    _check_model(skill, options.model_from)
    _check_executor(skill, options, awaits=awaits)
    if options.batch is not None:
        check_batch(skill, options.batch, options.max_concurrent, options.model_from, prefetch=options.prefetch)


def _check_model(skill: str, model_from: object) -> None:
    if model_from is not None and not (isinstance(model_from, str) and model_from):
        raise SkillDefinitionError(skill, f"model_from must be the name of a param, not {model_from!r:.80}")


def _check_executor(skill: str, options: SkillOptions, *, awaits: bool) -> None:
    if options.executor not in _EXECUTORS:
        raise SkillDefinitionError(skill, f"executor must be 'thread', 'process' or left out, not {options.executor!r}")
    if options.executor == "thread" and awaits:
        raise SkillDefinitionError(skill, "executor='thread' is for plain def functions")
    if options.max_tasks_per_child is not None:
        if not is_count(options.max_tasks_per_child):
            most = options.max_tasks_per_child
            raise SkillDefinitionError(skill, f"max_tasks_per_child must be a positive integer, not {most!r}")
        if not options.in_process:
            raise SkillDefinitionError(skill, "max_tasks_per_child is for executor='process'")
    if options.gpus is not None:
        _check_gpus(skill, options.gpus)
        if not options.in_process:
            raise SkillDefinitionError(skill, "gpus is for executor='process': a process is what can be given a device")


def _check_gpus(skill: str, gpus: object) -> None:
    if (
        isinstance(gpus, int | float)
        and not isinstance(gpus, bool)
        and (LEAST <= gpus <= 1 or (1 < gpus <= MOST and gpus == int(gpus)))
    ):
        return
    text = f"gpus must be a number of devices (1, 2, …) or a share of one ({LEAST} to 1), not {gpus!r:.80}"
    raise SkillDefinitionError(skill, text)


def _is_seconds(value: object, *, least: float = 0.0) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < math.inf
