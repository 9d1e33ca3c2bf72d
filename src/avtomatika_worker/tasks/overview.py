"""The running tasks, as seen from outside the worker. May be read from any thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from avtomatika_worker import threadsafe
from avtomatika_worker.execution.execution import Execution
from avtomatika_worker.policy.estimate import seconds_left
from avtomatika_worker.tasks.events import TaskEvents
from avtomatika_worker.world import World

MOST_SHOWN: Final = 100
"""Maximum number of tasks to show: those that have run longest."""


class ShownTask(NamedTuple):
    """A running task. Its messages are not shown: access to the health port does not imply access to users' texts."""

    task_id: str
    job_id: str
    skill: str
    orchestrator: str
    hand_outs: int
    execution: Execution
    events: TaskEvents


class Overview:
    """The running tasks."""

    def __init__(self, world: World) -> None:
        self._monotonic = world.monotonic
        self._tasks: threadsafe.Table[Execution, ShownTask] = threadsafe.Table()

    def show(self, task: ShownTask) -> None:
        """Show a task, or update one that is shown."""
        self._tasks.put(task.execution, task)

    def hide(self, execution: Execution) -> None:
        """Stop showing a task."""
        self._tasks.remove(execution)

    def skills(self) -> list[str]:
        """Return the distinct names of their skills."""
        return list({each.skill for each in self._tasks.values()})

    def __call__(self) -> Sequence[dict[str, Any]]:
        """Return the running tasks as plain values, in order of arrival."""
        now = self._monotonic()
        return [_described(each, now) for each in self._tasks.values()[:MOST_SHOWN]]


def _described(task: ShownTask, now: float) -> dict[str, Any]:
    started, reported, skill = task.execution.started, task.events.reported, task.execution.controls.skill
    progress, at = (0.0, None) if reported is None else (reported[0], reported[1] - started)
    expected = None if skill is None else skill.options.expected_seconds
    left = seconds_left(now - started, progress=progress, reported_at=at, expected=expected)
    return {
        "task_id": task.task_id,
        "job_id": task.job_id,
        "skill": task.skill,
        "orchestrator": task.orchestrator,
        "seconds": round(max(0.0, now - started), 1),
        "progress": None if reported is None else progress,
        "seconds_left": None if left is None else round(left, 1),
        "hand_outs": task.hand_outs,
    }
