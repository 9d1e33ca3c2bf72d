"""One result or event on its way, and one attempt to deliver it. Used from both loops."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from avtomatika_worker.delivery.store import Store, size_of
from avtomatika_worker.delivery.works import Fate, Works
from avtomatika_worker.errors import (
    MalformedMessageError,
    RejectedError,
    TransportError,
    UnsendableValueError,
    WorkerError,
)
from avtomatika_worker.execution.report import replace_refused, replace_unsendable
from avtomatika_worker.link.call_budgets import KindBudget
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.retry import delay_after, kind_of
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.telemetry import OFF
from avtomatika_worker.policy.backoff import Backoff
from avtomatika_worker.protocol.messages import Event, EventReply, TaskResult

_log: Final = logging.getLogger("avtomatika_worker.outbox")

REPLAYS_DOUBTED: Final = 2
"""Accepted registrations after which the refusal of an event counts as that of a replay."""

_SUPERSEDED: Final = frozenset({"stale_task", "worker_mismatch"})
"""Reasons for ignoring a result because another attempt at the task counts (RXON.md, "Error codes")."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A result or event that is being delivered. Each attempt is freshly signed (RXON.md, "Signing").

    Deliveries in one ``lane`` are sent one after another, those in different lanes concurrently. ``row`` is where it is
    stored, ``size`` its bytes if known; ``doubtful``: an attempt may have arrived although its response was lost;
    ``restored``: an earlier run of the worker left it behind; ``discarded``: it is no longer wanted. ``created`` is in
    Unix seconds, ``since`` in those of the steady clock.
    """

    link: Link
    message: TaskResult | Event
    backoff: Backoff
    lane: Hashable
    created: float
    since: float
    next_delay: float = 0.0
    row: int | None = None
    size: int = 0
    forbidden: int = 0
    forbidden_in: int = -1
    doubtful: bool = False
    restored: bool = False
    discarded: bool = False
    last_error: str = ""

    @property
    def age(self) -> float:
        """Seconds since it was created, unaffected by changes to the machine's clock."""
        return max(0.0, self.link.world.steady() - self.since)

    @property
    def budget(self) -> KindBudget:
        """The budget for its kind of call: one kind's limit never holds back the other."""
        return self.link.events if isinstance(self.message, Event) else self.link.results

    @property
    def checkpoint(self) -> str | None:
        """The key of the checkpoint that it makes obsolete."""
        return self.message.checkpoint if isinstance(self.message, TaskResult) else None

    @property
    def name(self) -> str:
        """A description for logs."""
        if isinstance(self.message, TaskResult):
            return f"result of task {self.message.task_id}"
        return f"event {self.message.event_type!r} of task {self.message.origin_task_id}"

    @property
    def ids(self) -> dict[str, object]:
        """The fields for log records about it."""
        if isinstance(self.message, TaskResult):
            return {"task_id": self.message.task_id, "job_id": self.message.job_id}
        return {"task_id": self.message.origin_task_id, "job_id": self.message.target_job_id}


async def keep(delivery: Delivery, store: Store) -> None:
    """Store a delivery on disk if possible."""
    if delivery.row is None and store.on:
        delivery.row = await store.keep(delivery.link.url, delivery.message, delivery.created)


async def attempt(delivery: Delivery, store: Store, works: Works) -> float | Fate:
    """Try once; return the seconds to wait before the next attempt, or the delivery's fate if there will be none."""
    link, message = delivery.link, delivery.message
    try:
        if not isinstance(message, Event):
            return await _send_result(delivery, message, store, works)
        _event_answered(delivery, await link.send_event(message))
    except UnsendableValueError as error:
        return await _unsendable(delivery, store, works, error)
    except RejectedError as error:
        if _is_replay(delivery, error):
            _count(delivery, "delivered")
            text = "%s counts as delivered to %s: it was refused as a replay after a lost response"
            _log.info(text, delivery.name, delivery.link.url, extra={"action": "event_replayed"})
            return Fate.SETTLED
        delivery.doubtful = delivery.doubtful or error.maybe_processed
        if error.retryable:
            return _failed(delivery, error)
        return await _refused(delivery, store, works, error)
    except (TransportError, MalformedMessageError) as error:
        delivery.doubtful, delivery.forbidden = True, 0
        return _failed(delivery, error)
    return Fate.SETTLED


def _is_replay(delivery: Delivery, error: RejectedError) -> bool:
    """Whether an event is refused because an earlier attempt, whose response was lost, arrived (RXON.md, "Signing").

    A wrong token or a skewed clock also yields 403. So this counts only if the refusals continue although
    registrations, which are signed the same way, are accepted in between.
    """
    if not isinstance(delivery.message, Event) or not delivery.doubtful or not delivery.link.dialect.replay_nonces:
        return False
    if error.status != 403 or not error.from_orchestrator:
        delivery.forbidden = 0
        return False
    link = delivery.link
    if delivery.forbidden == 0 or delivery.forbidden_in != link.contacts.version:
        delivery.forbidden, delivery.forbidden_in = delivery.forbidden + 1, link.contacts.version
    if delivery.forbidden > REPLAYS_DOUBTED:
        return True
    link.contact_broken()
    return False


def _event_answered(delivery: Delivery, answer: EventReply) -> None:
    if answer.accepted:
        _count(delivery, "delivered")
    else:
        _refused_event(delivery, f"{answer.code}: {answer.message}")


async def _send_result(delivery: Delivery, result: TaskResult, store: Store, works: Works) -> Fate:
    """Send a result under the newest id of its task, and under older ones when that is stale.

    Raises what `Link.send_result` raises.
    """
    while True:
        delivery.message = result = works.addressed(delivery, result)
        reply = await delivery.link.send_result(result)
        follows = await _when_stale(delivery, result, store, works) if reply.stale else Fate.SETTLED
        if follows is not Fate.TRY_NEXT:
            break
    if reply.status == "accepted":
        works.accepted(delivery, result)
    if result.checkpoint is not None and reply.reason not in _SUPERSEDED:
        # Before the result is settled: if the worker ends in between, both are repeated.
        await store.remove_checkpoint(result.checkpoint)
    telemetry = delivery.link.telemetry
    if telemetry is not OFF:
        _count(delivery, "ignored" if reply.status == "ignored" else "delivered")
        telemetry.metrics.time(metrics.DELIVERY_DURATION, delivery.age, delivery.link.label)
    if reply.status == "ignored":
        reason = reply.reason or reply.message
        kept = "; it is kept, in case the task is handed out again" if follows is Fate.KEPT else ""
        text, args = "%s ignored by %s: %s%s", (delivery.name, delivery.link.url, reason, kept)
        _log.info(text, *args, extra={"action": "result_ignored"})
    return follows


async def _when_stale(delivery: Delivery, result: TaskResult, store: Store, works: Works) -> Fate:
    """Return the fate of a result that is stale under its current id."""
    if result.work is None:
        return Fate.SETTLED
    delivery.size = delivery.size or size_of(result)
    await keep(delivery, store)  # before the main loop can resume it
    return works.refused(delivery, result, delivery.link.now())


async def _unsendable(delivery: Delivery, store: Store, works: Works, error: UnsendableValueError) -> float | Fate:
    if isinstance(delivery.message, Event):
        _refused_event(delivery, f"it cannot be sent: {error}")
        return Fate.SETTLED
    _log.error("the %s cannot be sent: %s", delivery.name, error, extra={"action": "result_unsendable"})
    await _replace(delivery, store, replace_unsendable(delivery.message, error))
    return await attempt(delivery, store, works)


async def _refused(delivery: Delivery, store: Store, works: Works, error: RejectedError) -> float | Fate:
    """Accept a final refusal, and send a failure with the reason so that the task does not hang at the orchestrator."""
    if isinstance(delivery.message, Event):
        _refused_event(delivery, str(error))
        return Fate.SETTLED
    _log.error("%s refused by %s: %s", delivery.name, delivery.link.url, error, extra={"action": "result_refused"})
    _count(delivery, "refused")
    replacement = replace_refused(delivery.message, error)
    if replacement is None:
        return Fate.SETTLED
    await _replace(delivery, store, replacement)
    return await attempt(delivery, store, works)


async def _replace(delivery: Delivery, store: Store, message: TaskResult) -> None:
    """Replace a message that cannot be delivered by another one, also on disk."""
    row, delivery.row, delivery.message = delivery.row, None, message
    if row is not None:
        await keep(delivery, store)
        store.forget(row)


def _failed(delivery: Delivery, error: WorkerError) -> float:
    delay = delay_after(delivery.backoff, error, delivery.link.world)
    delivery.last_error = str(error)
    limited = isinstance(error, RejectedError) and error.rate_limited
    _count(delivery, "limited" if limited else "failed")
    if limited:
        delivery.budget.hold(delay)
    delivery.link.faults.log(
        _log,
        logging.WARNING,
        "%s not delivered to %s (attempt %d), next in %.1f s: %s",
        delivery.name,
        delivery.link.url,
        delivery.backoff.attempts,
        delay,
        error,
        action="result_retry",
        kind=kind_of(error),
    )
    return delay


def delivery_of(link: Link, message: TaskResult | Event) -> Delivery:
    """Return the delivery of a new message."""
    if isinstance(message, TaskResult):
        lane = result_lane(link, message.task_id)
    else:
        lane = events_lane(link, message.origin_task_id or "")
    return Delivery(link, message, Backoff(link.settings.calls), lane, link.world.wall(), link.world.steady())


def result_lane(link: Link, task_id: str) -> Hashable:
    """Return the lane of a task's result."""
    return (link.url, task_id, "result")


def events_lane(link: Link, task_id: str) -> Hashable:
    """Return the lane of a task's events, which stay in order."""
    return (link.url, task_id, "events")


def _count(delivery: Delivery, outcome: str) -> None:
    kind = "result" if isinstance(delivery.message, TaskResult) else "event"
    delivery.link.telemetry.metrics.count(metrics.DELIVERIES, delivery.link.label, kind, outcome)


def _refused_event(delivery: Delivery, why: str) -> None:
    _count(delivery, "refused")
    delivery.link.faults.log(
        _log,
        logging.ERROR,
        "%s was not accepted by %s: %s",
        delivery.name,
        delivery.link.url,
        why,
        action="event_refused",
    )
