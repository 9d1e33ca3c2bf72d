"""What holds in every history of a worker, whatever fails (docs/delivery.md, "Invariants").

Each is a function of the entries that yields what contradicts it. They are pure, so a history from anywhere will do.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from avtomatika_worker.protocol.messages import PROGRESS_EVENT
from avtomatika_worker.testing.history.entries import Entry, Kind

Invariant = Callable[[Sequence[Entry]], Iterator[str]]

_ROUNDING: Final = 0.005
"""Seconds by which the times of a task's work may be off: the worker's log rounds them."""

_ON_ITS_WAY: Final = 0.25
"""Seconds that a call may take to an orchestrator."""

_REFUSED_FOR_GOOD: Final = frozenset({400, 413})
_GIVEN_UP_RIGHTLY: Final = frozenset({"result_expired", "result_superseded"})

_LIMITED: Final = 429
_TASK: Final = 200
_REFUSED: Final = 400

_LENDS_AFTER: Final = 0.45
"""Seconds after its beginning from which a poll may have lent its slot: the log is a little later than the poll."""

_BUSY: Final = 10.0
"""Seconds by which a heartbeat may be later than the worker's settings say: the machine may have much to do."""


def one_accepted_result(entries: Sequence[Entry]) -> Iterator[str]:
    """A task has at most one accepted result each time it is handed out, and a finished job has exactly one."""
    handed_out = Counter(entry.task_id for entry in entries if entry.kind is Kind.HANDED_OUT)
    accepted = Counter(entry.task_id for entry in _accepted_results(entries))
    for task_id, count in accepted.items():
        if count > handed_out[task_id] > 0:
            yield f"task {task_id} was handed out {handed_out[task_id]} times and has {count} accepted results"
    good = Counter(entry.job_id for entry in _accepted_results(entries) if entry.facts.get("status") != "failure")
    for entry in entries:
        if entry.kind is Kind.JOB_ENDED and entry.facts.get("state") == "finished" and good[entry.job_id] != 1:
            yield f"job {entry.job_id} has finished with {good[entry.job_id]} accepted results"


def work_never_doubled(entries: Sequence[Entry]) -> Iterator[str]:
    """A worker never runs the same work twice at once, whatever task ids it comes under."""
    identities = _identities(entries)
    latest: dict[tuple[str, ...], _Work] = {}
    for work in _works(entries):
        key = (work.worker_id, *identities.get(work.task_id, (work.job_id, work.skill)))
        before = latest.get(key)
        if before is not None and work.began < before.ended - _ROUNDING:
            overlap = before.ended - work.began
            yield f"job {work.job_id}: tasks {before.task_id} and {work.task_id} ran at once for {overlap:.3f} s"
        if before is None or work.ended > before.ended:
            latest[key] = work


def results_settled(entries: Sequence[Entry]) -> Iterator[str]:
    """The result of a skill that has ended was accepted, ignored or refused for good, or is on disk."""
    settled = {entry.task_id for entry in entries if _settles(entry)}
    stored = sum(entry.facts["count"] for entry in entries if entry.kind is Kind.RESULTS_STORED)
    identities = _identities(entries)
    handed_out = [entry for entry in entries if entry.kind is Kind.HANDED_OUT]

    def answered(work: _Work) -> bool:
        """Whether there is an answer under its task id, or under one that the same work has got since it began."""
        identity = identities.get(work.task_id)
        newer = {
            entry.task_id for entry in handed_out if identities[entry.task_id] == identity and work.began <= entry.at
        }
        return not settled.isdisjoint({work.task_id} | newer)

    left = [work.task_id for work in _works(entries) if work.task_id not in settled and not answered(work)]
    if len(left) > stored:
        yield f"results without a final answer: {len(left)}, on disk: {stored}; of tasks {', '.join(left)}"


def events_before_result(entries: Sequence[Entry]) -> Iterator[str]:
    """No event of a task is sent for the first time after the task's result was accepted, unless events met a 429."""
    ended: set[str] = set()
    seen: set[str] = set()
    limited: set[str] = set()
    for entry in entries:
        if _is_event(entry, Kind.CALL_ANSWERED) and entry.facts.get("code") == _LIMITED:
            limited.add(entry.worker_id)
        elif _answers_result(entry, "accepted"):
            ended.add(entry.task_id)
        elif entry.kind is Kind.HANDED_OUT:
            ended.discard(entry.task_id)  # again under the same id
        elif _is_event(entry, Kind.CALL_SENT) and entry.facts["event_id"] not in seen:
            seen.add(entry.facts["event_id"])
            if entry.task_id in ended and entry.worker_id not in limited:
                yield f"event {entry.facts['event_type']!r} of task {entry.task_id} was sent after its result"


def events_in_order(entries: Sequence[Entry]) -> Iterator[str]:
    """The events of a task are accepted in the order in which they were first sent."""
    sent: dict[str, dict[str, None]] = defaultdict(dict)
    accepted: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in entries:
        if _is_event(entry, Kind.CALL_SENT):
            sent[entry.task_id].setdefault(entry.facts["event_id"])
        elif _is_event(entry, Kind.CALL_ANSWERED) and entry.facts["answer"] == "event_accepted":
            accepted[entry.task_id].setdefault(entry.facts["event_id"])
    for task_id, order in accepted.items():
        if list(order) != [event_id for event_id in sent[task_id] if event_id in order]:
            yield f"the events of task {task_id} were accepted in another order than they were sent"


def slots_not_exceeded(entries: Sequence[Entry]) -> Iterator[str]:
    """A worker never runs more tasks than it has slots."""
    yield from _over_slots(entries, polls=False)


def polls_within_free_slots(entries: Sequence[Entry]) -> Iterator[str]:
    """A worker never has more polls in flight at an orchestrator than free slots, but for those that lend theirs."""
    yield from _over_slots(entries, polls=True)


def heartbeats_in_time(entries: Sequence[Entry]) -> Iterator[str]:
    """A worker's heartbeats are never further apart than it promises, or its settings and the lease say."""
    promised = {
        entry.worker_id: float(entry.facts["seconds"]) for entry in entries if entry.kind is Kind.HEARTBEATS_PROMISED
    }
    leases: dict[str, float] = {}
    alive: dict[tuple[str, str], float] = {}
    configured: dict[tuple[str, str], float] = {}
    broken: set[tuple[str, str]] = set()
    for entry in entries:
        link = (entry.orchestrator, entry.worker_id)
        if entry.kind is Kind.ORCHESTRATOR_STARTED:
            leases[entry.orchestrator] = entry.facts["lease"]
        elif entry.kind is Kind.ORCHESTRATOR_STOPPED:
            alive = {key: at for key, at in alive.items() if key[0] != entry.orchestrator}
        elif entry.kind is Kind.HEARTBEATS_CONFIGURED:
            configured[link] = float(entry.facts["seconds"]) + _BUSY
        elif entry.kind is Kind.CALL_SENT and link in alive:
            gap, lease = entry.at - alive[link], leases.get(entry.orchestrator, 60.0)
            # A worker that has lost contact pauses before it registers, and one that starts has not lived before.
            interval = lease if link in broken or entry.facts["call"] == "register" else configured.get(link, lease)
            most = promised.get(entry.worker_id, min(lease, interval))
            if gap > most:
                yield f"worker {entry.worker_id} has sent no heartbeat for {gap:.1f} s, {most:.1f} are allowed"
                del alive[link]
        _note_contact(entry, broken)
        _note_life(entry, alive)


def _note_contact(entry: Entry, broken: set[tuple[str, str]]) -> None:
    """Keep the links at which contact may be broken."""
    if entry.kind is Kind.CALL_ANSWERED:
        link = (entry.orchestrator, entry.worker_id)
        if _is_bad(entry):
            broken.add(link)
        elif entry.facts["call"] in {"register", "heartbeat"}:
            broken.discard(link)


def _note_life(entry: Entry, alive: dict[tuple[str, str], float]) -> None:
    """Keep the times of the latest heartbeats of workers that are registered and have not said goodbye."""
    link, call = (entry.orchestrator, entry.worker_id), entry.facts.get("call")
    if entry.kind is Kind.CALL_ANSWERED and call == "register" and entry.facts["code"] == 200:
        alive[link] = entry.at
    elif entry.kind is Kind.CALL_SENT and call == "heartbeat":
        if entry.facts.get("status") == "offline":
            alive.pop(link, None)
        else:
            alive[link] = entry.at


def silent_after_offline(entries: Sequence[Entry]) -> Iterator[str]:
    """After "offline" a worker neither polls nor heartbeats at that orchestrator before it registers again."""
    offline: dict[tuple[str, str], float] = {}
    for entry in entries:
        if entry.kind is not Kind.CALL_SENT:
            continue
        link, call = (entry.orchestrator, entry.worker_id), entry.facts["call"]
        if call == "register":
            offline.pop(link, None)
        elif link in offline:
            if call in {"poll", "heartbeat"} and entry.at > offline[link] + _ON_ITS_WAY:  # results are never kept back
                yield f"worker {entry.worker_id} sent a {call} after it had said that it is offline"
        elif call == "heartbeat" and entry.facts.get("status") == "offline":
            offline[link] = entry.at


def refused_never_ran(entries: Sequence[Entry]) -> Iterator[str]:
    """A task that was answered without being run did not run, until it was handed out again."""
    refused: set[str] = set()
    ran: set[str] = set()
    for entry in entries:
        if entry.kind is Kind.HANDED_OUT:
            refused.discard(entry.task_id)
            ran.discard(entry.task_id)
        elif entry.kind is Kind.NOT_RUN:
            refused.add(entry.task_id)
        elif entry.kind is Kind.WORK_STARTED:
            ran.add(entry.task_id)
        else:
            continue
        if entry.task_id in refused & ran:
            yield f"task {entry.task_id} was refused, and ran"


INVARIANTS: Final[dict[str, Invariant]] = {
    invariant.__name__: invariant
    for invariant in (
        one_accepted_result,
        work_never_doubled,
        results_settled,
        events_before_result,
        events_in_order,
        slots_not_exceeded,
        polls_within_free_slots,
        heartbeats_in_time,
        silent_after_offline,
        refused_never_ran,
    )
}
"""Every invariant by its name."""


# ------------------------------------------------------------------------------------------------ helpers


@dataclass(frozen=True, slots=True)
class _Work:
    worker_id: str
    job_id: str
    task_id: str
    skill: str
    began: float
    ended: float


def _identities(entries: Iterable[Entry]) -> dict[str, tuple[str, ...]]:
    """Return what identifies the work of each task: plain tasks get a new id whenever they are handed out."""
    return {
        entry.task_id: (entry.job_id, str(entry.facts.get("skill")), str(entry.facts.get("params")))
        for entry in entries
        if entry.kind is Kind.HANDED_OUT
    }


def _works(entries: Iterable[Entry]) -> Iterator[_Work]:
    """Return what ran, in the order in which it started. Work without an end has none: its process was killed."""
    running: dict[str, list[tuple[float, Entry]]] = defaultdict(list)
    found: list[_Work] = []
    for entry in entries:
        if entry.kind is Kind.WORK_STARTED:
            running[entry.task_id].append((entry.at, entry))
        elif entry.kind is Kind.WORK_ENDED and running[entry.task_id]:
            began, start = running[entry.task_id].pop(0)
            found.append(_Work(start.worker_id, start.job_id, start.task_id, start.facts["skill"], began, entry.at))
    return iter(sorted(found, key=lambda work: work.began))


def _accepted_results(entries: Iterable[Entry]) -> Iterator[Entry]:
    return (entry for entry in entries if _answers_result(entry, "accepted"))


def _answers_result(entry: Entry, answer: str) -> bool:
    is_result = entry.kind is Kind.CALL_ANSWERED and entry.facts["call"] == "result"
    return is_result and entry.facts.get("answer") == answer


def _settles(entry: Entry) -> bool:
    if entry.kind is Kind.RESULT_GIVEN_UP:
        return entry.facts["reason"] in _GIVEN_UP_RIGHTLY
    if entry.kind is not Kind.CALL_ANSWERED or entry.facts["call"] != "result":
        return False
    return entry.facts["code"] in _REFUSED_FOR_GOOD or entry.facts.get("answer") in {"accepted", "ignored"}


def _is_event(entry: Entry, kind: Kind) -> bool:
    """Whether it is about an event of a skill's own: of progress only the newest matters."""
    is_event = entry.kind is kind and entry.facts["call"] == "event"
    return is_event and bool(entry.task_id) and entry.facts["event_type"] != PROGRESS_EVENT


def _over_slots(entries: Sequence[Entry], *, polls: bool) -> Iterator[str]:
    """Find where more slots are taken than there are: by running tasks or, with ``polls``, by polls too."""
    workers: dict[str, _SlotUse] = defaultdict(_SlotUse)
    for entry in entries:
        use = workers[entry.worker_id]
        use.note(entry)
        taken = use.running + (use.polling_at(entry.at) if polls else 0)
        takes_one = _is_poll_sent(entry) if polls else entry.kind is Kind.WORK_STARTED
        if use.slots and taken > use.slots and takes_one:
            what = "tasks running or polled for" if polls else "tasks running"
            yield f"worker {entry.worker_id} has {use.slots} slots and {taken} {what}"


def _is_poll_sent(entry: Entry) -> bool:
    return entry.kind is Kind.CALL_SENT and entry.facts["call"] == "poll"


@dataclass(slots=True)
class _PollInFlight:
    orchestrator: str
    began: float
    lent: bool = False


class _SlotUse:
    """A worker's slots, and what takes them.

    A poll that is in flight when its worker registers again, or is seen just after that, may never be answered, and
    lends its slot, as one does that has waited for a while. With several orchestrators it does so, too, when contact
    there breaks. If such a poll does bring a task, another one lends its own, which may be on its way still.
    """

    def __init__(self) -> None:
        self.slots = 0
        self.running = 0
        self._polls: dict[int, _PollInFlight] = {}
        self._orchestrators: set[str] = set()
        self._begun: dict[str, deque[float]] = defaultdict(deque)
        """When polls began that have not arrived, where the worker is in this process."""
        self._registered_again: dict[str, float] = {}
        self._taken_at = -math.inf
        """When a task came for which no poll was seen that could have lent its slot."""

    def note(self, entry: Entry) -> None:
        call = entry.facts.get("call")
        if entry.kind is Kind.POLLING:
            self._begun[entry.orchestrator].append(entry.at)
        elif call == "register":
            if entry.orchestrator in self._orchestrators and entry.kind is Kind.CALL_SENT:
                self._registered_again[entry.orchestrator] = entry.at
                self._begun[entry.orchestrator].clear()
            self._orchestrators.add(entry.orchestrator)
            self.slots = int(entry.facts.get("slots") or self.slots)
            self._lend_all(entry.orchestrator)
        elif _is_poll_sent(entry):
            begun = self._begun[entry.orchestrator]
            began = begun.popleft() if begun else entry.at - _ON_ITS_WAY
            lent = entry.at - self._taken_at < _ON_ITS_WAY
            lent = lent or began < self._registered_again.get(entry.orchestrator, -math.inf)
            self._polls[entry.facts["number"]] = _PollInFlight(entry.orchestrator, began, lent)
            self._taken_at = -math.inf
        elif entry.kind is Kind.CALL_ANSWERED:
            self._note_answer(entry)
        self.running += (entry.kind is Kind.WORK_STARTED) - (entry.kind is Kind.WORK_ENDED)

    def polling_at(self, now: float) -> int:
        """Return how many polls hold a slot."""
        return sum(not self._may_lend(poll, now) for poll in self._polls.values())

    def _note_answer(self, entry: Entry) -> None:
        poll = self._polls.pop(entry.facts["number"], None) if entry.facts["call"] == "poll" else None
        if poll is not None and entry.facts["code"] == _TASK and self._may_lend(poll, entry.at):
            waiting = [each for each in self._polls.values() if not self._may_lend(each, entry.at)]
            if waiting:
                min(waiting, key=lambda each: each.began).lent = True
            else:
                self._taken_at = entry.at
        if len(self._orchestrators) > 1 and _is_bad(entry):
            self._lend_all(entry.orchestrator)

    def _may_lend(self, poll: _PollInFlight, now: float) -> bool:
        return poll.lent or now - poll.began >= _LENDS_AFTER

    def _lend_all(self, orchestrator: str) -> None:
        for poll in self._polls.values():
            poll.lent = poll.lent or poll.orchestrator == orchestrator


def _is_bad(entry: Entry) -> bool:
    """Whether an answer, or the lack of one, may have broken contact."""
    code: int = entry.facts["code"]
    return code == 0 or code >= _REFUSED
