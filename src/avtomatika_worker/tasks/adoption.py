"""Lets work in progress or done here answer a task that is handed out again (RXON.md, Behaviour 12). On the main loop.

An orchestrator's timeout never makes work run twice: the execution continues, and its result goes to the newest id.
See docs/explanation/adoption.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from avtomatika_worker.delivery.attempt import Delivery
from avtomatika_worker.delivery.works import Works
from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.link.link import Link
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.telemetry import Telemetry
from avtomatika_worker.policy.known_work import Known, Stage, Verdict, judge
from avtomatika_worker.protocol.coerce import as_number
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.protocol.work import WorkKey
from avtomatika_worker.tasks.running import RunningTask, RunningTasks

_log: Final = logging.getLogger("avtomatika_worker.task")


class Adoption:
    """Adopts hand-outs of known work. ``send_again`` is called with a kept result that is now wanted again."""

    def __init__(
        self,
        running: RunningTasks,
        works: Works,
        telemetry: Telemetry,
        send_again: Callable[[Delivery], None],
    ) -> None:
        self._running = running
        self._works = works
        self._telemetry = telemetry
        self._send_again = send_again
        self.total: int = 0
        """The number of adopted hand-outs. May be read from any thread."""

    def takes(self, link: Link, task: Task, work: WorkKey) -> bool:
        """Adopt a hand-out, unless its work is unknown here or must be redone; return whether it was adopted."""
        running = self._running.find_work(work)
        known = self._works.known(work) if running is None or running.finished else _stage_of(running)
        verdict = judge(known, made=as_number(task.timestamp), has_step=work.step is not None)
        if verdict is Verdict.RUN or known is None:
            return False
        if verdict is Verdict.ADOPT and running is not None:
            self._running.adopt(running, task, newest=_is_newest(task, running.task))
        else:
            newest = running is None or _is_newest(task, running.task)
            if (delivery := self._works.add(work, task, newest=newest)) is not None:
                self._send_again(delivery)
        self._report(link, task, known.stage)
        return True

    def came_empty(self, link: Link, polled: float) -> None:
        """Record that a poll, sent at ``polled``, brought nothing.

        This stops tasks known to be stale: if their new attempt were queued for this worker, the poll would have
        brought it. A worker whose slots are all taken sends no polls, so its tasks continue.
        """
        for running in self._running:
            if running.link is link and running.stale_since is not None and running.stale_since < polled:
                self._running.cancel_one(running, CancelReason.STALE)

    def is_stale(self, running: RunningTask, now: float) -> None:
        """Record that the orchestrator is waiting for another attempt at a running task."""
        if running.stale_since is not None:
            return
        skill = running.controls.skill
        finishes = skill is not None and skill.options.on_stale == "finish"
        running.stale_since = math.inf if finishes else now
        _log.info(
            "task %s is stale: %s is waiting for another attempt%s",
            running.task.task_id,
            running.link.url,
            "; it runs to completion anyway" if finishes else "",
            extra={"action": "task_stale"},
        )

    def _report(self, link: Link, task: Task, stage: Stage) -> None:
        self.total += 1
        self._telemetry.metrics.count(metrics.TASKS_ADOPTED, link.label, stage.value)
        how = (
            "the running execution continues" if stage is Stage.RUNNING else "its result is delivered under the new id"
        )
        _log.info(
            "task %s is a new hand-out of work known here: %s",
            task.task_id,
            how,
            extra={"action": "task_adopted", "task_id": task.task_id, "job_id": task.job_id, "stage": stage.value},
        )


def _stage_of(running: RunningTask) -> Known:
    return Known(Stage.STOPPING if running.ctx.cancelled else Stage.RUNNING)


def _is_newest(task: Task, known: Task) -> bool:
    """Whether a hand-out is newer than another: by their times, or else by the order in which they arrive."""
    made, before = as_number(task.timestamp), as_number(known.timestamp)
    return made is None or before is None or made >= before
