"""The console's live stream: first the whole state, then changes, at most a few times a second.

Many changes become one message: a job that changed a hundred times is sent once, in its current state.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from avtomatika_worker.devserver.changes import Change, Hub, Subscription
from avtomatika_worker.devserver.console.figures import Figures
from avtomatika_worker.devserver.console.shown_program import Program
from avtomatika_worker.devserver.console.task_logs import TaskLogs
from avtomatika_worker.devserver.console.views import call_view, fault_views, job_row, problem_view, worker_view
from avtomatika_worker.devserver.faults import FaultBook
from avtomatika_worker.devserver.orchestrator import Orchestrator
from avtomatika_worker.devserver.snapshots import RecordedCall
from avtomatika_worker.devserver.sse import EventStream

_TOGETHER: Final = 0.05
"""Seconds for which changes are gathered into one message."""

_LOOK: Final = 0.25
"""Seconds between checks of what sends no notification: logs, heartbeats, calls, used faults."""

_BACK_AFTER: Final = 0.5
"""Seconds before a page reconnects: ``worker dev --reload`` is back that soon."""

_CALLS: Final = 60
_PROBLEMS: Final = 50


class Feed:
    """Writes the stream for each page that is open."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        hub: Hub,
        faults: FaultBook,
        calls: deque[RecordedCall],
        logs: TaskLogs,
        clock: Callable[[], float],
        about: dict[str, Any],
        program: Program,
        figures: Figures,
    ) -> None:
        self._orchestrator = orchestrator
        self._hub = hub
        self._faults = faults
        self._calls = calls
        self._logs = logs
        self._clock = clock
        self._about = about
        self._program = program
        self._figures = figures

    async def write(self, stream: EventStream) -> None:
        """Write until the page is closed or the orchestrator stops."""
        async with self._hub.subscribe() as changes:
            glance = _Glance(self)
            glance.has_been_sent(self._orchestrator.book.jobs)
            await stream.ask_for_return(_BACK_AFTER)
            await stream.send("all", {**self._everything(), **glance.look()})
            quiet = 0.0
            while not changes.ended:
                news = await self._next(changes)
                glance.has_been_sent(row["job_id"] for row in news.get("jobs", ()))
                news.update(glance.look())
                if news:
                    quiet = 0.0
                    await stream.send("news", {"now": self._clock(), **news})
                elif (quiet := quiet + _LOOK) >= stream.keep_alive_after:
                    quiet = 0.0
                    await stream.keep_alive()

    def _everything(self) -> dict[str, Any]:
        return {
            "now": self._clock(),
            "about": self._about,
            "jobs": [job_row(job) for job in self._orchestrator.book.jobs.values()],
            "problems": [problem_view(each) for each in list(self._orchestrator.problems)[-_PROBLEMS:]],
            "logs": self._logs.of(""),
        }

    async def _next(self, changes: Subscription) -> dict[str, Any]:
        first = await changes.next_within(_LOOK)
        if first is None:
            return {}
        await asyncio.sleep(_TOGETHER)
        gathered = [first]
        while changes.pending:
            gathered.append(await anext(changes))
        return _sorted(gathered)

    # Read by `_Glance`.

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers as they are now."""
        return [worker_view(worker, *self._figures.slots_of(worker)) for worker in self._orchestrator.workers.values()]

    def figures(self) -> dict[str, Any]:
        """Return the figures of the charts."""
        return self._figures.to_json()

    def skills(self) -> list[dict[str, Any]]:
        """Return the skills of all workers: in the order of the author's code, then those that only the wire knows."""
        workers = self._orchestrator.workers.values()
        known = {name: skill for worker in workers for name, skill in worker.skills.items()}
        written = self._program.skills
        order = [*(name for name in written if name in known), *sorted(known.keys() - written.keys())]
        return [self._as_written(known[name]) for name in order]

    def _as_written(self, skill: dict[str, Any]) -> dict[str, Any]:
        """Return a skill with its fields in the author's order; on the wire they are sorted."""
        written = self._program.skills.get(skill["name"], {})
        return {**skill, **{name: value for name, value in written.items() if value and value == skill.get(name)}}

    def totals(self) -> dict[str, Any]:
        """Return how many jobs were ever submitted, and how many of them are in which state."""
        by_state = {state.value: count for state, count in self._orchestrator.book.totals().items()}
        return {"submitted": sum(by_state.values()), "by_state": by_state}

    @property
    def problem(self) -> str | None:
        """What keeps the worker's program from starting, if it is known."""
        return self._program.problem

    @property
    def forgotten(self) -> int:
        """How many ended jobs are no longer kept."""
        return self._orchestrator.book.forgotten

    def is_kept(self, job_id: str) -> bool:
        """Whether a job is still known."""
        return job_id in self._orchestrator.book.jobs

    def faults(self) -> list[dict[str, Any]]:
        """Return the pending faults."""
        return fault_views(self._faults.pending)

    def calls_after(self, last: RecordedCall | None) -> list[RecordedCall]:
        """Return the latest calls after a given one, oldest first."""
        newer = itertools.takewhile(lambda call: call is not last, reversed(self._calls))
        return list(itertools.islice(newer, _CALLS))[::-1]

    def lines_after(self, number: int) -> list[dict[str, Any]]:
        """Return the lines of the log after a given one."""
        return self._logs.after(number)

    @property
    def newest_line(self) -> int:
        """The number of the newest line of the log."""
        return self._logs.newest


class _Glance:
    """The last state sent to one page of things without notifications; `look` returns what has changed since."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._last: dict[str, Any] = {}
        self._last_call: RecordedCall | None = None
        self._last_line = feed.newest_line
        self._jobs: set[str] = set()
        self._forgotten = 0

    def has_been_sent(self, job_ids: Iterable[str]) -> None:
        """Remember the jobs that the page has, to say when they are no longer kept."""
        self._jobs.update(job_ids)

    def look(self) -> dict[str, Any]:
        feed = self._feed
        news: dict[str, Any] = {}
        states = {
            "workers": feed.workers(),
            "skills": feed.skills(),
            "faults": feed.faults(),
            "totals": feed.totals(),
            "figures": feed.figures(),
            "problem": feed.problem,
        }
        for name, value in states.items():
            if self._last.get(name) != value:
                news[name] = self._last[name] = value
        if calls := feed.calls_after(self._last_call):
            self._last_call = calls[-1]
            news["calls"] = [call_view(call) for call in calls]
        if lines := feed.lines_after(self._last_line):
            self._last_line = lines[-1]["number"]
            news["logs"] = lines
        if self._forgotten != feed.forgotten:
            self._forgotten = feed.forgotten
            if gone := [job_id for job_id in self._jobs if not feed.is_kept(job_id)]:
                self._jobs.difference_update(gone)
                news["forgotten"] = gone
        return news


def _sorted(changes: list[Change]) -> dict[str, Any]:
    """Group changes by their subject."""
    jobs: dict[str, dict[str, Any]] = {}
    events: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for change in changes:
        if change.kind == "problem":
            problems.append({**change.data, "time": change.time})
        elif change.kind == "event":
            job_id = change.job.job_id if change.job is not None else None
            events.append({"job_id": job_id, "time": change.time, "event": change.data})
        elif change.job is not None:
            jobs[change.job.job_id] = job_row(change.job, change.data)
    found = {"jobs": list(jobs.values()), "events": events, "problems": problems}
    return {name: values for name, values in found.items() if values}
