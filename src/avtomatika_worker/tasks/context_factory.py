"""Makes tasks' controls, with everything a skill can know and do while it runs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from avtomatika_worker.execution.controls import Controls, HotCache
from avtomatika_worker.execution.execution import Pipeline
from avtomatika_worker.execution.payloads import EventFacts, plain_payload
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.telemetry import Telemetry
from avtomatika_worker.protocol.dialects import Dialect
from avtomatika_worker.protocol.messages import PROGRESS_EVENT, Task
from avtomatika_worker.tasks.events import TaskEvents


class ContextFactory:
    """Makes one for each task. Itself made on the main loop."""

    def __init__(
        self,
        worker_id: str,
        pipeline: Pipeline,
        hot: HotCache,
        files: Files,
        telemetry: Telemetry,
        *,
        strict_events: bool,
    ) -> None:
        self._worker_id = worker_id
        self._loop = asyncio.get_running_loop()
        self._files = files
        self._telemetry = telemetry
        self._pipeline = pipeline
        self._hot = hot
        self._strict_events = strict_events

    def make(self, task: Task, events: TaskEvents, dialect: Dialect) -> Controls:
        """Return the controls of a task, and with them its context.

        Its events go to ``events``; its result is written in ``dialect``.
        """
        return Controls(
            task,
            self._worker_id,
            sink=events,
            check_event=partial(self._checked, events),
            hot=self._hot,
            observability=self._telemetry.manager,
            resources=self._pipeline.resources,
            skill=self._pipeline.skill(task.type),
            dialect=dialect,
            files=self._files_of,
        )

    def _files_of(self, controls: Controls) -> FileOperations:
        task = controls.task
        return self._files.for_task(task.job_id, task.task_id, controls.say, self._loop)

    def _checked(
        self, events: TaskEvents, skill: str, event_type: str, payload: object, facts: EventFacts
    ) -> tuple[dict[str, Any] | None, str | None]:
        plain, problem = plain_payload(payload)
        if plain is not None:
            problem = self._problem_of(events, skill, event_type, plain, facts)
        outcome = "blocked" if problem else "sent"
        self._telemetry.metrics.count(metrics.EVENTS, *self._pipeline.label(skill), outcome)
        return (None, problem) if problem else (plain, None)

    def _problem_of(
        self, events: TaskEvents, skill_name: str, event_type: str, payload: dict[str, Any], facts: EventFacts
    ) -> str | None:
        if event_type == PROGRESS_EVENT:  # its two values are looked at one by one
            return None
        if problem := events.unsendable(event_type, payload, facts):
            return problem
        skill = self._pipeline.skill(skill_name)
        return skill.event_problem(event_type, payload, self._strict_events) if skill else None
