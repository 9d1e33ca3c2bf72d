"""Whether what a run has written down is right: every finding is one line of text.

The witnesses are the wire, the journal of what ran in the worker, the worker's own file at each of its ends, its log,
and what the client knows of its jobs. The history checker (`avtomatika_worker.testing.history`) has the first word.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.tasks.poll_source import OVERDUE
from avtomatika_worker.testing.history import Entry, History, Kind, Violation
from avtomatika_worker.testing.history.invariants import events_before_result
from bench.endure.client import Job
from bench.endure.wire import Wire
from bench.endure.workload import events_of, is_right
from bench.soak.check import EXPECTED, ON_ITS_WAY, WRITING, Journal, bad_ends, bad_lines
from bench.soak.jobs import EVENT, JOURNAL
from bench.soak.processes import POLL_TIMEOUT, Life

REGISTERS_WITHIN: Final = 10.0
"""Seconds after a disturbance for which a worker may be unknown to its orchestrator."""

CANCELS_WITHIN: Final = 8.0
"""Seconds that a cancellation may take to a running skill where nothing is disturbed: it comes with a heartbeat."""

LIMITED_FOR: Final = 65.0
"""Seconds for which a worker leaves an orchestrator alone, at most, that has refused a call by its rate limit."""

_LOG_ROUNDS: Final = 0.001
"""Seconds by which times in the log are rounded down, at most."""

_EVENTS_FIRST: Final = 4.5
"""Seconds for which a result waits for its events, nearly: after that it may overtake them."""

_EARLIER: Final = 0.5
"""Seconds by which the worker may take a poll for overdue before the wire does."""

_RUNS_AGAIN: Final = frozenset({"TRANSIENT_ERROR"})
_DELIVERED: Final = frozenset({200, 403})
_OVER: Final = frozenset({"job_not_found", "job_already_terminated", "job_cancelled"})
"""Why an orchestrator itself cancels tasks: it has forgotten their job, or given it up."""

_GIVEN_UP: Final = frozenset({"result_lost", "result_expired", "result_superseded"})


@dataclass
class Evidence:
    """What a run leaves behind."""

    entries: list[Entry]
    journal: Journal
    jobs: Sequence[Job]
    workers: dict[str, Life]
    orchestrators: Sequence[Life]
    log: Path
    cuts: Sequence[tuple[float, float]] = ()
    left: Sequence[str] = ()
    """Results and events that are still in the worker's file."""

    @classmethod
    def of(
        cls, directory: Path, wire: Wire, jobs: Sequence[Job], workers: list[Life], others: list[Life], left: list[str]
    ) -> Evidence:
        """Collect it."""
        journal = Journal.read(directory / JOURNAL)
        lives = {life.name: life for life in workers}
        return cls(wire.entries, journal, jobs, lives, others, directory / "worker.log", wire.cuts, left)


@dataclass
class Judge:
    """Compares the witnesses of one run."""

    evidence: Evidence
    figures: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        seen = self.evidence
        self._actions = Counter[str]()
        self._logged = list(bad_lines(seen.log, self._actions, EXPECTED))
        self._handed = [entry for entry in seen.entries if entry.kind is Kind.HANDED_OUT]
        self._results = _calls(seen.entries, Kind.CALL_SENT, "result")
        self._answers = _calls(seen.entries, Kind.CALL_ANSWERED, "result")
        self._broken = list(_broken(seen.entries))
        self._limited = [span for call in ("poll", "result") for span in _limited(seen.entries, call)]
        self._sent = {entry.task_id for entry in self._results}
        self.history = History(
            [*seen.entries, *self._worked(), *_of_log(seen.log), *self._ends(), *_overdue(seen.entries)]
        )
        self._jobs = {job.id: job for job in seen.jobs}

    def findings(self) -> list[Violation]:
        """Return what is wrong."""
        steps = {
            events_before_result.__name__: events_before_result(self._not_overtaken()),
            "unanswered": self._unanswered(),
            "wrong_result": self._wrong_results(),
            "events": self._events(),
            "stored": self._stored(),
            "jobs": self._ended_jobs(),
            "cancelled": self._cancelled(),
            "processes": bad_ends(list(self.evidence.workers.values()), self.evidence.orchestrators),
            "log": iter(self._logged),
        }
        found = self.history.violations(except_for={events_before_result.__name__})
        found += [Violation(name, text) for name, texts in steps.items() for text in texts]
        self.figures["log_actions"] = dict(self._actions.most_common())
        return found

    # ------------------------------------------------------------------------------------- entries of the history

    def _worked(self) -> Iterator[Entry]:
        """What ran to its end, but for what ended as its worker was killed, before its result was on disk."""
        seen, skills = self.evidence, {entry.task_id: entry.facts["skill"] for entry in self._handed}
        jobs = {entry.task_id: entry.job_id for entry in self._handed}
        for task_id, ends in seen.journal.ended.items():
            for name, ended in ends:
                if task_id not in self._sent and self._killed_at(name, ended, WRITING):
                    continue
                began = max(at for life, at in seen.journal.began[task_id] if life == name and at <= ended)
                ids = {"worker_id": name, "task_id": task_id, "job_id": jobs.get(task_id, "")}
                facts = {"skill": skills.get(task_id, ""), "status": ""}
                yield Entry(at=began, kind=Kind.WORK_STARTED, **ids, facts=facts)
                yield Entry(at=ended, kind=Kind.WORK_ENDED, **ids, facts=facts)

    def _ends(self) -> Iterator[Entry]:
        """Plain jobs that have finished, where the wire has seen every answer."""
        unseen = {entry.job_id for entry in self._answers if not entry.facts["code"]}
        for job in self.evidence.jobs:
            if job.state == "finished" and job.task.kind != "branches" and job.id not in unseen:
                yield Entry(at=job.ended, kind=Kind.JOB_ENDED, job_id=job.id, facts={"state": job.state})
        if self.evidence.entries:
            at = max(entry.at for entry in self.evidence.entries)
            yield Entry(at=at, kind=Kind.RESULTS_STORED, facts={"count": len(self.evidence.left)})

    def _not_overtaken(self) -> list[Entry]:
        """The history without the events that were disturbed, and whose result had waited for them long enough."""
        first, overtaken = dict[str, float](), set[str]()
        for entry in self._results:
            first.setdefault(entry.task_id, entry.at)
        journal = self.evidence.journal
        for task_id, ends in (*journal.ended.items(), *journal.broke_off.items()):
            for _, at in ends:
                late = first.get(task_id, at) - at > _EVENTS_FIRST
                if late and self._disturbed(at - REGISTERS_WITHIN, first[task_id]):
                    overtaken.add(task_id)
        return [
            entry
            for entry in self.history.entries
            if entry.task_id not in overtaken or entry.facts.get("call") != "event"
        ]

    def _killed_at(self, name: str, at: float, within: float) -> bool:
        life = self.evidence.workers.get(name)
        return bool(life and life.signal == "SIGKILL" and life.signalled and -0.5 < life.signalled - at < within)

    # ------------------------------------------------------------------------------------- tasks

    def _unanswered(self) -> Iterator[str]:
        """A task without any result has a reason for it."""
        reasons, latest = Counter[str](), dict[tuple[str, str, str], float]()
        for entry in self._handed:
            latest[_identity(entry)] = entry.at
        for entry in self._handed:
            if entry.task_id in self._sent:
                continue
            reason = "handed out again" if latest[_identity(entry)] > entry.at else self._excuse(entry)
            if reason:
                reasons[reason] += 1
            else:
                yield f"task {entry.task_id} ({entry.facts['skill']}) of job {entry.job_id} has no result"
        self.figures["tasks_without_a_result"] = dict(reasons)

    def _excuse(self, entry: Entry) -> str:
        """Return why a task has no result, empty for no good reason."""
        job = self._jobs.get(entry.job_id)
        if entry.facts.get("fault"):
            return "the answer that brought it was broken"
        if job and job.cancelled:
            return "its job was cancelled"
        ended = self.evidence.journal.ended.get(entry.task_id, ())
        for name, _ in self.evidence.journal.began.get(entry.task_id, ()):
            if self.evidence.workers[name].signal == "SIGKILL" and not any(life == name for life, _ in ended):
                return "killed as it ran"
            if any(life == name and self._killed_at(life, at, WRITING) for life, at in ended):
                return "killed as its result was written"
        if self._killed_at(entry.worker_id, entry.at, ON_ITS_WAY) and entry.task_id not in self.evidence.journal.began:
            return "killed as it was on its way"
        return "the network was cut as it was on its way" if self._cut(entry.at - 1, entry.at + 1) else ""

    def _wrong_results(self) -> Iterator[str]:
        """Every result is that of its task and its job, and has the right value."""
        handed = {entry.task_id: entry for entry in self._handed}
        statuses = Counter[str]()
        unwanted = {entry.task_id for entry in self._answers if entry.facts.get("reason") in _OVER}
        for entry in self._results:
            of = handed.get(entry.task_id)
            error = (entry.facts.get("error") or {}).get("code")
            statuses[error or str(entry.facts["status"])] += 1
            if of is None or of.job_id != entry.job_id:
                yield f"a result of task {entry.task_id}, job {entry.job_id}: nobody has handed that out"
            elif error in _RUNS_AGAIN and self._ending(entry.at):
                continue  # handed back as the worker shut down
            elif entry.facts["status"] == "cancelled" and (entry.task_id in unwanted or self._is_cancelled(of, entry)):
                continue
            elif not is_right(of.facts["skill"], of.facts["params"], dict(entry.facts)):
                text = json.dumps({name: entry.facts.get(name) for name in ("status", "error", "data")})[:300]
                yield f"a wrong result of task {entry.task_id} ({of.facts['skill']}): {text}"
        verdicts = Counter(str(entry.facts.get("reason") or entry.facts.get("answer")) for entry in self._answers)
        self.figures["results"] = {"sent": dict(statuses), "answered": dict(verdicts)}

    def _is_cancelled(self, handed: Entry, result: Entry) -> bool:
        """Whether a task's job was cancelled, or forgotten: some releases order what they do not know cancelled."""
        job = self._jobs.get(result.job_id)
        ends = [life.signalled for life in self.evidence.orchestrators if life.signalled]
        return (job is not None and job.cancelled > 0) or any(handed.at <= end <= result.at for end in ends)

    def _ending(self, at: float) -> bool:
        """Whether a worker was asked to end before."""
        asked = [life.signalled for life in self.evidence.workers.values() if life.signal == "SIGTERM"]
        return any(moment is not None and moment <= at for moment in asked)

    def _events(self) -> Iterator[str]:
        """The events of a task whose success was accepted have come, in order; those of an earlier attempt may, too."""
        handed, steps, of_event = {e.task_id: e for e in self._handed}, defaultdict[str, list[int]](list), set[str]()
        for entry in _calls(self.evidence.entries, Kind.CALL_ANSWERED, "event"):
            if entry.facts["event_type"] != EVENT or entry.facts["event_id"] in of_event:
                continue
            if entry.facts["code"] in _DELIVERED:
                of_event.add(entry.facts["event_id"])
                steps[entry.job_id].append(entry.facts["payload"]["step"])
        self.figures["events"] = len(of_event)
        for entry in self._answers:
            of = handed.get(entry.task_id)
            if of is None or entry.facts.get("answer") != "accepted" or entry.facts["status"] != "success":
                continue
            job = self._jobs.get(entry.job_id)
            if job is None or job.task.kind == "branches":
                continue
            wanted, found = events_of(of.facts["params"], of.facts["skill"]), steps[entry.job_id]
            if not _within(wanted, found):
                yield f"the events of job {entry.job_id}, task {entry.task_id} are {found} instead of {wanted}"

    def _stored(self) -> Iterator[str]:
        """What was in the worker's file when it ended has come; nothing is left."""
        handed, newer = {entry.task_id: entry for entry in self._handed}, defaultdict[Any, set[str]](set)
        for entry in self._handed:
            newer[_identity(entry)].add(entry.task_id)
        count = 0
        for life in self.evidence.workers.values():
            count += len(life.stored)
            for task_id in life.stored:
                known = newer[_identity(handed[task_id])] if task_id in handed else {task_id}
                if known.isdisjoint(self._sent):
                    yield f"the result of task {task_id} was on disk as {life.name} ended, and never came"
        self.figures["on_disk_at_an_end"] = count
        for text in self.evidence.left:
            yield f"left on disk: {text}"

    # ------------------------------------------------------------------------------------- jobs

    def _ended_jobs(self) -> Iterator[str]:
        """A job ends as its results say; without an accepted success it ends otherwise only after a disturbance."""
        good = {
            (entry.job_id, entry.task_id)
            for entry in self._answers
            if entry.facts.get("answer") == "accepted" and entry.facts["status"] == "success"
        }
        good_of = Counter(job_id for job_id, _ in good)
        states, otherwise = Counter[str](), Counter[str]()
        last = self.evidence.orchestrators[-1].name
        for job in self.evidence.jobs:
            lost = self.evidence.orchestrators[job.orchestrator - 1].name != last
            state = job.state or ("lost with the orchestrator's memory" if lost else "open")
            states[state] += 1
            wanted = len(job.task.params["branches"]) if job.task.kind == "branches" else 1
            text = f"job {job.id} ({job.task.kind}) is {state}: {job.error[:200]}"
            if state == "open" or (job.state == "finished" and not job.task.ends_well and not job.task.cancel_after):
                yield text
            elif job.state in {"failed", "quarantined"} and job.task.ends_well:
                otherwise[f"{job.task.kind}, {job.state}"] += 1
                if good_of[job.id] >= wanted:
                    yield f"{text}; its results were accepted"
                elif self._known(job.submitted) and not self._held_up(job):
                    yield text
        self.figures["jobs"] = dict(states)
        self.figures["disturbed_jobs_that_did_not_finish"] = dict(otherwise)
        self.figures["kinds"] = dict(Counter(job.task.kind for job in self.evidence.jobs))

    def _cancelled(self) -> Iterator[str]:
        """A cancelled task does not run on."""
        handed, stopped = {entry.task_id: entry.job_id for entry in self._handed}, 0
        for task_id, ends in self.evidence.journal.broke_off.items():
            job = self._jobs.get(handed.get(task_id, ""))
            stopped += len(ends) if job and job.cancelled else 0
        for task_id, ends in self.evidence.journal.ended.items():
            job = self._jobs.get(handed.get(task_id, ""))
            if job is None or not job.cancelled:
                continue
            for name, at in ends:
                began = max(b for life, b in self.evidence.journal.began[task_id] if life == name and b <= at)
                late = max(began, job.cancelled) + CANCELS_WITHIN
                if at > late and not self._disturbed(began - REGISTERS_WITHIN, at):
                    yield f"task {task_id} of job {job.id} ran for {at - job.cancelled:.1f} s after it was cancelled"
        self.figures["cancelled_as_they_ran"] = stopped

    # ------------------------------------------------------------------------------------- disturbances

    def _disturbed(self, since: float, until: float) -> bool:
        """Whether a process was ending, the network was cut or a call broke in that time."""
        lives = (*self.evidence.workers.values(), *self.evidence.orchestrators)
        ends = ((life.signalled, life.ended or life.signalled) for life in lives if life.signalled)
        if any(began <= until and since <= ended for began, ended in ends) or self._cut(since, until):
            return True
        return any(began <= until and since <= ended for began, ended in self._broken)

    def _held_up(self, job: Job) -> bool:
        """Whether something kept a job from ending well: a disturbance, or the orchestrator's limits."""
        limited = any(began <= job.ended and job.submitted <= ended for began, ended in self._limited)
        return limited or self._disturbed(job.submitted - REGISTERS_WITHIN, job.ended)

    def _known(self, at: float) -> bool:
        """Whether the worker has registered since it and the orchestrator last started or ended."""
        lives = (*self.evidence.workers.values(), *self.evidence.orchestrators)
        moments = (moment for life in lives for moment in (life.began, life.ended) if moment and moment <= at)
        since = max(moments, default=0.0)
        registered = _calls(self.evidence.entries, Kind.CALL_ANSWERED, "register")
        return any(since <= entry.at <= at - 0.5 and entry.facts["code"] == 200 for entry in registered)

    def _cut(self, since: float, until: float) -> bool:
        return any(began <= until and since <= ended for began, ended in self.evidence.cuts)


def _calls(entries: Sequence[Entry], kind: Kind, call: str) -> list[Entry]:
    return [entry for entry in entries if entry.kind is kind and entry.facts.get("call") == call]


def _broken(entries: Sequence[Entry]) -> Iterator[tuple[float, float]]:
    """When calls were sent that broke, and when they ended: a silent one takes its time, and holds up what follows."""
    sent = {entry.facts["number"]: entry.at for entry in entries if entry.kind is Kind.CALL_SENT}
    for entry in entries:
        if entry.kind is Kind.CALL_ANSWERED and (entry.facts.get("fault") or not entry.facts["code"]):
            yield sent[entry.facts["number"]], entry.at


def _limited(entries: Sequence[Entry], call: str) -> Iterator[tuple[float, float]]:
    """When no such call could be made, as the orchestrator had refused one by its rate limit: until the next one."""
    sent = [entry.at for entry in _calls(entries, Kind.CALL_SENT, call)]
    for entry in _calls(entries, Kind.CALL_ANSWERED, call):
        if entry.facts["code"] == 429:
            until = entry.at + LIMITED_FOR
            yield entry.at, min([until, *(at for at in sent if at > entry.at)])


def _identity(entry: Entry) -> tuple[str, str, str]:
    return entry.job_id, str(entry.facts.get("skill")), str(entry.facts.get("params"))


def _overdue(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Polls that wait for longer than they asked to no longer count: a silent orchestrator holds no slot."""
    for entry in _calls(entries, Kind.CALL_SENT, "poll"):
        at = entry.at + POLL_TIMEOUT + OVERDUE - _EARLIER
        yield Entry(
            at=at, kind=Kind.CALL_ANSWERED, orchestrator=entry.orchestrator, worker_id=entry.worker_id,
            facts={**entry.facts, "code": -1},
        )  # fmt: skip


def _within(wanted: list[int], found: list[int]) -> bool:
    """Whether all of ``wanted`` is in ``found``, in that order, with or without something in between."""
    rest = iter(found)
    return all(step in rest for step in wanted)


def _of_log(log: Path) -> Iterator[Entry]:
    """What only the worker's log says: tasks that were answered without running, and results given up."""
    for line in log.read_text("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        action = record.get("action")
        if action != "task_answered" and action not in _GIVEN_UP:
            continue
        kind = Kind.NOT_RUN if action == "task_answered" else Kind.RESULT_GIVEN_UP
        at = datetime.fromisoformat(record["timestamp"]).timestamp() + _LOG_ROUNDS
        ids = {"task_id": str(record.get("task_id", "")), "job_id": str(record.get("job_id", ""))}
        yield Entry(at=at, kind=kind, **ids, facts={"reason": action})
