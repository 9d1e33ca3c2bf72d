"""Makes the controls of tasks, with everything that a skill can see and do while it runs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from avtomatika_worker.checkpoints.checkpoint_service import Checkpoints
from avtomatika_worker.checkpoints.keeper import Keeper, StartTask
from avtomatika_worker.execution.controls import Controls, HotCache
from avtomatika_worker.execution.execution import Pipeline
from avtomatika_worker.execution.payloads import EventFacts, plain_payload
from avtomatika_worker.execution.preempting import Preempting
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.link.link import Link
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.telemetry import Telemetry
from avtomatika_worker.protocol.messages import PROGRESS_EVENT, Task
from avtomatika_worker.protocol.work import WorkKey, work_key
from avtomatika_worker.tasks.events import TaskEvents


class ContextFactory:
    """Makes the controls of each task. Must be created on the main loop."""

    def __init__(
        self,
        worker_id: str,
        pipeline: Pipeline,
        hot: HotCache,
        files: Files,
        telemetry: Telemetry,
        *,
        strict_events: bool,
        checkpoints: Checkpoints,
        start: StartTask,
    ) -> None:
        """``start`` starts the preemption callbacks of skills."""
        self._worker_id = worker_id
        self._loop = asyncio.get_running_loop()
        self._files = files
        self._telemetry = telemetry
        self._pipeline = pipeline
        self._hot = hot
        self._strict_events = strict_events
        self._checkpoints = checkpoints
        self._start = start

    def make(self, link: Link, task: Task, work: WorkKey | None, events: TaskEvents) -> Controls:
        """Return the controls of a task of ``link``, which include its context.

        Its events go to ``events``. ``work`` is the key of its work, None if not known yet.
        """
        skill = self._pipeline.skill(task.type)
        if work is None and self._pipeline.shows_context(skill):
            work = work_key(link.url, task)  # from the original params: middlewares and skills may change them
        return Controls(
            task,
            self._worker_id,
            sink=events,
            check_event=partial(self._checked, events),
            hot=self._hot,
            observability=self._telemetry.manager,
            resources=self._pipeline.resources,
            skill=skill,
            dialect=link.dialect,
            files=self._files_of,
            preempting=Preempting(self._loop if skill is not None and skill.is_async else None, self._start),
            desk=partial(self._keeper_of, link, work),
        )

    def _files_of(self, controls: Controls) -> FileOperations:
        task = controls.task
        return self._files.for_task(task.job_id, task.task_id, controls.say, self._loop)

    def _keeper_of(self, link: Link, work: WorkKey | None, controls: Controls) -> Keeper:
        work = work or work_key(link.url, controls.task)
        version = controls.skill.contract.version if controls.skill is not None else None
        controls.keeper = self._checkpoints.keeper(work, version, controls.task.task_id, lambda: controls.files)
        return controls.keeper

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
        if event_type == PROGRESS_EVENT:  # its two values are checked individually
            return None
        if problem := events.unsendable(event_type, payload, facts):
            return problem
        skill = self._pipeline.skill(skill_name)
        return skill.event_problem(event_type, payload, self._strict_events) if skill else None
