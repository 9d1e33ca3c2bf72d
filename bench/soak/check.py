"""Whether a soak's history is complete: every fault that it finds is one line of text.

Three witnesses are compared: the orchestrator's file, the journal of what ran in the worker, and what was in the
worker's own file when it was killed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.soak.history import connect
from bench.soak.jobs import HISTORY, JOURNAL, answer, fingerprint, job_of, refusal
from bench.soak.processes import Life

WRITING: Final = 2.0
"""Seconds for which a result may be on its way to the disk; who kills the worker then may lose it."""

ON_ITS_WAY: Final = 10.0
"""Seconds for which a task may be on its way to its skill; who kills one of both sides then may lose it."""

LONGEST_PAUSE: Final = 60.0
"""Seconds without any result, restarts included, that are called a hang: jobs are never short."""

MEMORY_LIMIT: Final = 300.0
"""MiB of the worker's own process."""

EXPECTED: Final = frozenset({"loop_blocked", "task_malformed"})
"""Errors that a worker is right to log: the machine gives it no time, and a portal's page is no task."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A task as it was handed out."""

    task: str
    number: int
    at: float
    fault: str | None


@dataclass
class Journal:
    """What ran: for each task the lives in which it began and ended, and when."""

    began: dict[str, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[str, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    broke_off: dict[str, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read the lines that the worker has written."""
        journal = cls()
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            getattr(journal, entry["what"])[entry["task"]].append((entry["life"], entry["at"]))
        return journal


@dataclass
class Findings:
    """What a check has found: ``faults`` are the worker's, ``figures`` are for the report."""

    faults: list[str] = field(default_factory=list[str])
    figures: dict[str, Any] = field(default_factory=dict[str, Any])


class Check:
    """Compares the witnesses of one soak."""

    def __init__(self, directory: Path, seed: int, enough: float, workers: list[Life], others: list[Life]) -> None:
        self._db = connect(directory / HISTORY)
        self._journal = Journal.read(directory / JOURNAL)
        self._log = directory / "worker.log"
        self._seed = seed
        self._enough = enough
        self._workers = {life.name: life for life in workers}
        self._others = others
        self._findings = Findings()
        self._received = {row[0] for row in self._db.execute("SELECT DISTINCT task FROM results")}

    def run(self) -> Findings:
        """Return what there is to be said."""
        with contextlib.closing(self._db):
            steps = (
                self._jobs, self._results, self._unanswered, self._stored, self._events, self._processes, self._pauses,
                self._logged,
            )  # fmt: skip
            for step in steps:
                self._findings.faults.extend(step())
            self._findings.faults.extend(row[0] for row in self._db.execute("SELECT text FROM problems"))
        return self._findings

    def _jobs(self) -> Iterator[str]:
        """Every job has exactly one outcome that counts."""
        states = Counter(dict(self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()))
        tries = "SELECT count(*) FROM dispatches WHERE why = 'again'"
        self._findings.figures["jobs"] = {**states, "handed_out_again": self._one(tries)}
        for number, state in self._db.execute("SELECT number, state FROM jobs WHERE state IN ('waiting', 'running')"):
            yield f"job {number} has no outcome: it is {state}"
        query = (
            "SELECT d.number, count(*) FROM results r JOIN dispatches d USING (task)"
            " WHERE r.verdict = 'accepted' GROUP BY d.number HAVING count(*) != 1"
        )
        for number, count in self._db.execute(query):
            yield f"job {number} has {count} outcomes"

    def _results(self) -> Iterator[str]:
        """Every result is that of its task and its job, and has the right value."""
        verdicts, first = Counter[str](), set[str]()
        query = (
            "SELECT r.task, r.job, r.status, r.code, r.message, r.fingerprint, r.sample, r.verdict, d.number"
            " FROM results r LEFT JOIN dispatches d USING (task) ORDER BY r.id"
        )
        for task, job_id, status, code, message, found, sample, verdict, number in self._db.execute(query):
            verdicts["received_again" if task in first else verdict] += 1
            first.add(task)
            if number is None:
                yield f"a result of a task that nobody has handed out: {task}"
                continue
            job = job_of(self._seed, number)
            if job_id != job.job_id:
                yield f"{task} is of {job.job_id}, its result says {job_id}"
            if code == "TRANSIENT_ERROR" and job.skill != "refuse":
                continue  # handed back as the worker shut down: the next outcome counts
            if job.skill == "refuse":
                right = status == "failure" and code == "PERMANENT_ERROR" and refusal(number) in message
            else:
                right = status == "success" and found == fingerprint(answer(job.skill, number, job.params["salt"]))
            if not right:
                yield f"a wrong outcome of {task} ({job.skill}): {status} {code} {message} {sample}"
        self._findings.figures["results"] = dict(verdicts)

    def _unanswered(self) -> Iterator[str]:
        """A task without any result has a reason for it, and a kill or a broken call is the only one."""
        reasons = Counter[str]()
        for row in self._db.execute("SELECT task, number, at, fault FROM dispatches"):
            dispatch = Dispatch(*row)
            if dispatch.task in self._received:
                continue
            reason, excused = self._reason(dispatch)
            if excused:
                reasons[reason] += 1
            else:
                yield f"{dispatch.task} has no result: {reason}"
        self._findings.figures["tasks_without_a_result"] = dict(reasons)

    def _reason(self, dispatch: Dispatch) -> tuple[str, bool]:
        """Return why a task has no result, and whether that may be."""
        for name, at in self._journal.ended.get(dispatch.task, ()):
            life = self._workers[name]
            if life.signal == "SIGKILL" and life.signalled is not None and life.signalled - at < WRITING:
                return "killed as its result was written", True
            return f"its skill ended in {name}", False
        for name, _ in self._journal.began.get(dispatch.task, ()):
            if self._workers[name].signal == "SIGKILL":
                return "killed as it ran", True
            return f"it began in {name}, which ended by {self._workers[name].signal}", False
        if dispatch.fault is not None:
            return "the answer that brought it was broken", True
        for life in (*self._others, *self._workers.values()):
            if life.signal == "SIGKILL" and -2.0 < (life.signalled or 0.0) - dispatch.at < ON_ITS_WAY:
                return (
                    f"the {'orchestrator' if life in self._others else 'worker'} was killed as it was on its way",
                    True,
                )
        return "it never began", False

    def _stored(self) -> Iterator[str]:
        """What was in the worker's file when it was killed has come."""
        count = 0
        for life in self._workers.values():
            count += len(life.stored)
            for task in life.stored:
                if task not in self._received:
                    yield f"the result of {task} was on disk as {life.name} ended, and never came"
        self._findings.figures["on_disk_at_a_kill"] = count

    def _events(self) -> Iterator[str]:
        """Every event of a task that has a success has come, and in the order it was sent."""
        query = "SELECT task, group_concat(step) FROM (SELECT task, step FROM events ORDER BY rowid) GROUP BY task"
        steps = {task: [int(step) for step in found.split(",")] for task, found in self._db.execute(query)}
        query = (
            "SELECT DISTINCT r.task, d.number FROM results r JOIN dispatches d USING (task) WHERE status = 'success'"
        )
        for task, number in self._db.execute(query):
            wanted, found = list(range(job_of(self._seed, number).events)), steps.get(task, [])
            if found == wanted or not self._journal.began.get(task):
                continue  # the second kind: a task that came twice was answered with the result of its first run
            yield f"the events of {task} are {found} instead of {wanted}"
        self._findings.figures["events"] = self._one("SELECT count(*) FROM events")

    def _processes(self) -> Iterator[str]:
        """No life ended by itself, an orderly end has the right code, memory is bounded."""
        yield from bad_ends(self._workers.values(), self._others)
        rss = [life.rss for life in self._workers.values()]
        half = len(rss) // 2
        self._findings.figures["rss_mib"] = {
            "most": max(rss),
            "median_of_earlier_lives": median(rss[:half] or rss),
            "median_of_later_lives": median(rss[half:]),
        }
        self._findings.figures["open_files_most"] = max(life.files for life in self._workers.values())

    def _pauses(self) -> Iterator[str]:
        """Results come for as long as there are jobs, and soon after the orchestrator is back."""
        query = "SELECT at FROM results WHERE at < ? ORDER BY at"
        times = [row[0] for row in self._db.execute(query, (self._enough,))]
        longest = max((after - before for before, after in itertools.pairwise(times)), default=0.0)
        back = [row[0] for row in self._db.execute("SELECT registered - listening FROM runs WHERE registered > 0")]
        orderly = [
            life.ended - life.signalled
            for life in self._workers.values()
            if life.signal == "SIGTERM" and life.ended and life.signalled
        ]
        self._findings.figures["seconds"] = {
            "an_orderly_end_at_most": round(max(orderly, default=0.0), 1),
            "longest_without_a_result": round(longest, 1),
            "until_registered_after_a_restart": {"median": round(median(back), 2), "most": round(max(back), 2)},
        }
        if longest > LONGEST_PAUSE:
            yield f"no result for {longest:.0f} s"

    def _logged(self) -> Iterator[str]:
        """The worker's log has no errors but those of a machine that is busy, and no traceback."""
        actions = Counter[str]()
        yield from bad_lines(self._log, actions)
        self._findings.figures["log_actions"] = dict(actions.most_common())

    def _one(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]


def bad_ends(workers: Collection[Life], others: Iterable[Life]) -> Iterator[str]:
    """Name the lives that ended by themselves, not in order after SIGTERM, or took too much memory."""
    for life in (*workers, *others):
        if life.signal is None:
            yield f"{life.name} ended by itself with {life.code}"
    for life in workers:
        if life.signal == "SIGTERM" and not life.in_order:
            yield f"{life.name} did not end in order after SIGTERM: exit code {life.code}"
        if life.rss > MEMORY_LIMIT:
            yield f"{life.name} took {life.rss:.0f} MiB"


def bad_lines(log: Path, actions: Counter[str], expected: frozenset[str] = EXPECTED) -> Iterator[str]:
    """Name the lines of a worker's log that are errors or no records; count the others by their action."""
    for line in log.read_text("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            yield f"printed by the worker: {line[:300]}"
            continue
        actions[record.get("action", "none")] += 1
        if record["level"] in {"ERROR", "CRITICAL"} and record.get("action") not in expected:
            yield f"logged by the worker: {line[:600]}"


def counts(directory: Path) -> dict[str, Any]:
    """Return how many calls there were, and how many of them broke in which way."""
    with contextlib.closing(connect(directory / HISTORY)) as db:
        return {
            "calls": dict(db.execute("SELECT call, sum(count) FROM calls GROUP BY call").fetchall()),
            "broken": dict(db.execute("SELECT kind, count(*) FROM faults GROUP BY kind ORDER BY kind").fetchall()),
            "broken_by_call": dict(db.execute("SELECT call, count(*) FROM faults GROUP BY call").fetchall()),
        }
