"""Makes the contexts of tasks: what a skill can know and do while it runs."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.execution.context import EventSink, HotCache, TaskContext
from avtomatika_worker.execution.execution import Pipeline
from avtomatika_worker.files.service import Files
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.telemetry import Telemetry
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.skills.plain import to_plain


class Contexts:
    """Makes one for each task."""

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
        self._files = files
        self._telemetry = telemetry
        self._pipeline = pipeline
        self._hot = hot
        self._strict_events = strict_events

    def make(self, task: Task, sink: EventSink) -> TaskContext:
        """Return the context of a task; its events go to ``sink``."""
        loop = asyncio.get_running_loop()
        return TaskContext(
            skill=task.type,
            task_id=task.task_id,
            job_id=task.job_id,
            worker_id=self._worker_id,
            params=task.params or {},
            priority=task.priority or 0.0,
            deadline=task.deadline,
            metadata=task.metadata or {},
            security=task.security or {},
            tracing_context=task.tracing_context or {},
            sink=sink,
            check_event=self._checked,
            hot=self._hot,
            observability=self._telemetry.manager,
            params_metadata=task.params_metadata,
            resources=self._pipeline.resources,
            files=lambda ctx: self._files.for_task(ctx.job_id, ctx.task_id, ctx.tell, loop),
        )

    def _checked(self, skill: str, event_type: str, payload: object) -> tuple[dict[str, Any] | None, str | None]:
        plain, problem = self._check_event(skill, event_type, payload)
        outcome = "blocked" if plain is None else "sent"
        self._telemetry.metrics.count(metrics.EVENTS, *self._pipeline.label(skill), outcome)
        return plain, problem

    def _check_event(
        self, skill_name: str, event_type: str, payload: object
    ) -> tuple[dict[str, Any] | None, str | None]:
        try:
            plain = to_plain(payload)
        except UnsendableValueError as error:
            return None, str(error)
        if not isinstance(plain, dict):
            return None, f"the payload must be an object, not {type(payload).__name__}"
        fields = cast("dict[str, Any]", plain)
        skill = self._pipeline.skill(skill_name)
        problem = skill.event_problem(event_type, fields, self._strict_events) if skill else None
        return (None, problem) if problem else (fields, None)
