"""Compares how long a skill's tasks are expected to take with the time that they have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from avtomatika_worker.skills.skill import Skill


def too_short(skills: Iterable[Skill], task_limit: float) -> Iterator[str]:
    """Yield a text for each limit that is shorter than a skill's ``expected_seconds``.

    ``task_limit`` is how many seconds orchestrators give a task in all (RXON.md, Behaviour 12).
    """
    for skill in skills:
        expected, timeout, name = skill.options.expected_seconds, skill.options.timeout, skill.contract.name
        if expected is None:
            continue
        if timeout is not None and timeout < expected:
            yield f"skill {name} is expected to take {expected:g} s, and its timeout stops it after {timeout:g} s"
        if task_limit < expected:
            yield (
                f"skill {name} is expected to take {expected:g} s, and orchestrators give a task up after"
                f" {task_limit:g} s (ORCHESTRATOR_TASK_LIMIT)"
            )
