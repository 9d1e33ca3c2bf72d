"""Long polls: waiting workers, served in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from avtomatika_worker.devserver.changes import Hub
from avtomatika_worker.devserver.orchestrator import Orchestrator
from avtomatika_worker.devserver.snapshots import JobRecord


@dataclass(eq=False, slots=True)
class _Poll:
    skills: Collection[str] | None
    future: asyncio.Future[JobRecord | None]


class Polls:
    """The polls in flight. A waiting poll is served as soon as a queued job fits its worker."""

    def __init__(self, orchestrator: Orchestrator, hub: Hub) -> None:
        self._orchestrator = orchestrator
        self._hub = hub
        self._waiting: dict[str, deque[_Poll]] = {}
        self._serving = self._serve_again = False
        orchestrator.when_ready = self._serve

    async def next_task(self, worker_id: str, skills: Collection[str] | None, timeout: float) -> JobRecord | None:
        """Return the next task for a worker, or None if there is none within ``timeout`` seconds.

        A poll that is cancelled while being answered loses its task until the task's timeout, as with any
        orchestrator (RXON.md, Behaviour 2), and that is recorded as a problem.
        """
        job = self._orchestrator.take(worker_id, skills)
        if job is not None or timeout <= 0:
            return job
        loop = asyncio.get_running_loop()
        poll = _Poll(skills, loop.create_future())
        self._waiting.setdefault(worker_id, deque()).append(poll)
        timer = loop.call_later(timeout, _end, poll.future)
        self._count(worker_id)
        try:
            return await poll.future
        except asyncio.CancelledError:
            self._dropped(worker_id, poll)
            raise
        finally:
            timer.cancel()
            self._remove(worker_id, poll)

    def release(self) -> None:
        """Answer every waiting poll with no task."""
        for polls in self._waiting.values():
            for poll in polls:
                _end(poll.future)

    def _serve(self, worker_id: str | None) -> None:
        if not self._waiting:
            return
        if self._serving:  # looking for a job has made others ready: they are for the polls after this one
            self._serve_again = True
            return
        self._serving = True
        try:
            self._serve_each(list(self._waiting) if worker_id is None else [worker_id])
            while self._serve_again:
                self._serve_again = False
                self._serve_each(list(self._waiting))
        finally:
            self._serving = self._serve_again = False

    def _serve_each(self, turn: Sequence[str]) -> None:
        for candidate in turn:  # orchestrators prefer workers that have what a task needs loaded (observed)
            if hot := self._orchestrator.hot_skills(candidate):
                self._serve_worker(candidate, hot)
        for candidate in turn:
            self._serve_worker(candidate)

    def _serve_worker(self, worker_id: str, only: frozenset[str] | None = None) -> None:
        """Answer a worker's polls with jobs for its skills, or ``only`` for some of them."""
        vain: list[Collection[str] | None] = []
        for poll in tuple(self._waiting.get(worker_id, ())):
            skills = poll.skills if only is None else only.intersection(only if poll.skills is None else poll.skills)
            if poll.future.done() or skills in vain:
                continue
            job = self._orchestrator.take(worker_id, skills)
            if job is None:
                vain.append(skills)  # another poll may ask for other skills
                continue
            poll.future.set_result(job)
            polls = self._waiting.pop(worker_id)
            polls.remove(poll)
            self._waiting[worker_id] = polls  # the next job is another worker's turn

    def _dropped(self, worker_id: str, poll: _Poll) -> None:
        job = poll.future.result() if poll.future.done() and not poll.future.cancelled() else None
        if job is not None:
            text = f"the poll was dropped while being answered: task {job.task_id} is lost until its timeout"
            self._orchestrator.problem("poll", worker_id, 0, text)
            return
        worker = self._orchestrator.workers.get(worker_id)
        if worker is not None and worker.status == "idle":
            self._orchestrator.problem("poll", worker_id, 0, "an idle worker dropped a poll in flight")

    def _remove(self, worker_id: str, poll: _Poll) -> None:
        polls = self._waiting.get(worker_id)
        if polls is not None:
            if poll in polls:
                polls.remove(poll)
            if not polls:
                del self._waiting[worker_id]
        self._count(worker_id)

    def count(self, worker_id: str) -> int:
        """Return the number of a worker's waiting polls."""
        return len(self._waiting.get(worker_id, ()))

    def _count(self, worker_id: str) -> None:
        worker = self._orchestrator.workers.get(worker_id)
        if worker is not None:
            worker.polls = self.count(worker_id)
        self._hub.touch()


def _end(future: asyncio.Future[JobRecord | None]) -> None:
    if not future.done():
        future.set_result(None)
