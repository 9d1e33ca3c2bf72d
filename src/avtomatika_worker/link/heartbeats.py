"""Keeps the worker registered with one orchestrator: registration, heartbeats, and reregistration after every break."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from avtomatika_worker import threadsafe
from avtomatika_worker._waiting import first_of
from avtomatika_worker.errors import (
    ConnectionFailedError,
    MalformedMessageError,
    RejectedError,
    TransportError,
    WorkerError,
)
from avtomatika_worker.link.access_tokens import obtain_token
from avtomatika_worker.link.clock import NOISE
from avtomatika_worker.link.doubt import Doubt
from avtomatika_worker.link.isolation import keep_running
from avtomatika_worker.link.keepalive import KeepAlive, Report, keepalive_of, use_granted
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.retry import delay_after, kind_of
from avtomatika_worker.observability import metrics
from avtomatika_worker.policy.backoff import Backoff, BackoffPolicy
from avtomatika_worker.policy.heartbeat import (
    REREGISTER_EVERY,
    Catalogue,
    HeartbeatMemory,
    WorkerState,
    bounded_interval,
)
from avtomatika_worker.protocol import dialects, replies
from avtomatika_worker.protocol.messages import HeartbeatReply, ResourcesUsage, WorkerRegistration, WorkerStatus
from avtomatika_worker.protocol.replies import Response

_log: Final = logging.getLogger("avtomatika_worker.link")

_HALF_LEASE: Final = 30.0
"""Seconds without an accepted heartbeat after which the orchestrator may have given up on the worker."""


_STEADY: Final = 10.0
"""Seconds that contact must last, unless a poll was answered, to be more than a flicker ..."""

_FLICKER: Final = 15.0
"""... and the longest pause in seconds before the next registration if it was just a flicker."""

_NOT_AUTHENTIC: Final = frozenset({401, 403})


class Announcement(msgspec.Struct, frozen=True):
    """What a worker announces about itself when it registers; its state supplies the availability."""

    registration: WorkerRegistration
    catalogue: Catalogue


class Heartbeats:
    """Registration and heartbeats for one orchestrator, on the link thread. ``on_cancel`` gets the ids to cancel."""

    def __init__(
        self,
        link: Link,
        state_watch: threadsafe.Watch[WorkerState],
        announcement: Announcement,
        on_cancel: Callable[[Link, tuple[str, ...]], None],
        usage: Callable[[], ResourcesUsage | None],
        doubt: Doubt | None = None,
    ) -> None:
        self._link = link
        self._world = link.world
        self._state_watch = state_watch
        self._announcement = announcement
        self._on_cancel = on_cancel
        self._usage = usage
        self._memory = HeartbeatMemory(link.settings.heartbeat_interval)
        self._doubt = doubt or Doubt(link.world.monotonic)
        self._last_contact = 0.0
        self._contact: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Keep contact until "offline" is announced."""
        async with asyncio.TaskGroup() as group:
            self._contact = group.create_task(keep_running(self._link, self._keep_contact))

    async def _keep_contact(self) -> None:
        """Register, send heartbeats until contact is lost, and start over, until cancelled."""
        initial = self._link.settings.registration.initial
        pauses = Backoff(BackoffPolicy(initial, max(initial, _FLICKER)))
        while True:
            await self._register()
            began = self._world.monotonic()
            await self._beat()
            if self._registers_instead() and not self._link.broken.is_open:
                continue  # each registration replaces a heartbeat, and the next one is due
            if self._link.polled or self._world.monotonic() - began >= _STEADY:
                pauses.succeeded()  # but not if every registration is followed by a failing poll
            # Thousands of workers notice the same outage at the same moment: spread their first attempts, too.
            await asyncio.sleep(pauses.failed(self._world.random.random()))

    async def watch_lease(self, limit: float, on_lost: Callable[[Link], None]) -> None:
        """Call ``on_lost`` once per outage longer than ``limit`` seconds, until cancelled."""
        reported = False
        while True:
            await asyncio.sleep(min(1.0, limit / 4))
            lost = self._is_out_of_reach(limit)
            if lost and not reported:
                await self._link.caught_up()  # the heartbeat process may have kept the lease
                lost = self._is_out_of_reach(limit)
            if lost and not reported:
                _log.error("%s was unreachable for too long", self._link.url, extra={"action": "lease_lost"})
                on_lost(self._link)
            reported = lost

    def _is_out_of_reach(self, limit: float) -> bool:
        return self._link.known.is_open and self._world.monotonic() - self._last_contact > limit

    async def announce(self, status: WorkerStatus) -> bool:
        """Send one heartbeat now, with ``status``; return whether it was accepted. Never raises a `WorkerError`.

        "offline" is final: no heartbeat follows it and, even if it fails, no registration, which would make the worker
        look idle.
        """
        if status is WorkerStatus.OFFLINE and self._contact is not None:
            self._contact.cancel()
        try:
            await self._send(_with_status(self._state_watch.value, status))
        except WorkerError as error:
            text = "%s did not accept the status %s: %s"
            _log.warning(text, self._link.url, status, error, extra={"action": "heartbeat_failed"})
            return False
        return True

    async def _register(self) -> None:
        """Register, retrying indefinitely."""
        backoff = Backoff(self._link.settings.registration)
        while True:
            try:
                await self._register_once(backoff.attempts)
            except WorkerError as error:
                self._link.registration_failed()
                self._count(metrics.REGISTRATIONS, "failed")
                delay = delay_after(backoff, error, self._link.world)
                self._link.faults.log(
                    _log,
                    logging.WARNING,
                    "registration with %s failed (attempt %d), next in %.1f s: %s",
                    self._link.url,
                    backoff.attempts,
                    delay,
                    _hint(error, self._link.url),
                    action="registration_failed",
                    kind=kind_of(error),
                )
                await asyncio.sleep(delay)
            else:
                self._count(metrics.REGISTRATIONS, "ok")
                return

    async def _register_once(self, failures: int) -> None:
        link, state = self._link, self._state_watch.value
        self._doubt.registering()
        response = await self._ask_for_registration(_announce(self._announcement.registration, state))
        reply = replies.decode_registration(response)
        version = reply.version or response.version
        if version is None:
            raise MalformedMessageError("not the answer to a registration: no version")
        again = link.known.is_open
        link.registered(version, reply.tokens, announced=response.from_orchestrator)
        await obtain_token(link)
        now = self._last_contact = self._world.monotonic()
        self._memory.registered(state, self._announcement.catalogue, now)
        _log.log(
            logging.DEBUG if again and not failures else logging.INFO,
            "registered with %s (protocol %s)%s",
            link.url,
            link.dialect.version,
            " again" if again else "",
            extra={
                "action": "registered",
                "worker_id": link.worker_id,
                "orchestrator": link.url,
                "longest_interval": bounded_interval(self._memory.interval, math.inf),
            },
        )

    async def _ask_for_registration(self, registration: WorkerRegistration) -> Response:
        """Send a registration, and again if a refusal may be due to the clock or the token.

        It carries a configured token, since registering is what yields access tokens.
        """
        link, offset = self._link, self._link.clock.offset

        async def send() -> Response:
            # The version may have changed while contact was lost: only the neutral form suits every orchestrator.
            request = link.codec.register(registration, dialects.NEUTRAL, link.now())
            return await link.call(request, breaks_on_500=True, configured_token=True)

        response = await send()
        if response.status in _NOT_AUTHENTIC and abs(link.clock.offset - offset) > NOISE:
            response = await send()
        if response.status in _NOT_AUTHENTIC and link.credentials.switch():
            response = await send()
            if response.status in _NOT_AUTHENTIC:
                link.credentials.switch()  # neither is accepted: the next attempt starts with the same one
            else:
                self._log_switch()
        return response

    def _log_switch(self) -> None:
        if self._link.credentials.on_fallback:
            text = "%s refused the worker's token; using the fallback (WORKER_TOKEN_FALLBACK)"
        else:
            text = "%s refused the worker's fallback token; using the first one again"
        _log.warning(text, self._link.url, extra={"action": "token_switched"})

    async def _beat(self) -> None:
        """Send heartbeats when they are due, until it is time to register again."""
        until = self._world.monotonic() + REREGISTER_EVERY * self._world.random.uniform(0.9, 1.1)
        backoff = Backoff(self._link.settings.calls)
        while await self._wait_until_due(until):
            if self._registers_instead():
                return
            try:
                await self._send(self._state_watch.value)
                backoff.succeeded()
            except (RejectedError, MalformedMessageError) as error:
                if self._refused(error, backoff):
                    return
            except TransportError as error:
                self._log_broken(error)
                return

    def _registers_instead(self) -> bool:
        """Whether a registration replaces the next heartbeat although contact is intact."""
        return self._world.monotonic() < self._memory.held_until or self._doubt.calls_for_registration

    def _log_broken(self, error: TransportError) -> None:
        self._link.faults.log(
            _log,
            logging.WARNING,
            "lost contact with %s: %s",
            self._link.url,
            error,
            action="contact_broken",
            kind=kind_of(error),
        )

    async def _wait_until_due(self, until: float) -> bool:
        """Wait until the next heartbeat is due; return False if a registration is due first."""
        while True:
            seen = self._state_watch.version
            now = self._world.monotonic()
            self._memory.noticed(self._state_watch.value, now)
            due = self._memory.due_at(now)
            if self._link.broken.is_open or now >= until:
                return False
            if due <= now:
                return True
            changed = partial(self._state_watch.changed, seen, None)
            await first_of(changed, self._link.broken.wait, timeout=min(due, until) - now)

    async def _send(self, state: WorkerState) -> None:
        outcome = "failed"
        try:
            await self._send_counted(state)
            outcome = "ok"
        finally:
            self._count(metrics.HEARTBEATS, outcome)

    async def _send_counted(self, state: WorkerState) -> None:
        link, memory, began = self._link, self._memory, self._world.monotonic()
        usage = memory.usage_to_report(self._usage(), self._world.monotonic())
        heartbeat = memory.compose(state, self._announcement.catalogue, link.dialect, usage)
        response = await link.ask(lambda: link.codec.heartbeat(heartbeat, link.dialect, link.now()), breaks_on_500=True)
        reply = replies.decode_heartbeat(response)
        now = self._last_contact = self._world.monotonic()
        link.telemetry.metrics.time(metrics.HEARTBEAT_DURATION, now - began, link.label)
        memory.sent(state, self._announcement.catalogue, now, jitter=reply.jitter_ms / 1000, full_sync=reply.full_sync)
        memory.usage_reported(usage, now)
        if reply.full_sync and heartbeat.catalogue is None:
            memory.next_regular = now
        self._cancel(reply)

    def _cancel(self, reply: HeartbeatReply) -> None:
        if reply.cancel_ids:
            self._on_cancel(self._link, reply.cancel_ids)

    # ------------------------------------------------------------------------------------- the heartbeat process

    def keepalive(self) -> KeepAlive | None:
        """Return the heartbeat to send while this process cannot; None if none should be sent.

        It repeats the worker's current state but nothing that is reported only once.
        """
        link, memory = self._link, self._memory
        if link.broken.is_open or not link.known.is_open:
            return None
        heartbeat = memory.compose(self._state_watch.value, self._announcement.catalogue, link.dialect)
        heartbeat = msgspec.structs.replace(heartbeat, catalogue=None, capabilities=None)
        return keepalive_of(link, heartbeat, memory.due_at(self._world.monotonic()))

    async def take(self, report: Report) -> None:
        """Process the response to a heartbeat that the heartbeat process sent, as if it were this process's own."""
        outcome = "failed"
        if report.granted is not None and report.registrations == self._link.registrations:
            use_granted(self._link, report.granted, self._world.monotonic() - report.at)
        try:
            reply = replies.decode_heartbeat(
                await self._link.relayed(report.response, report.asked, report.registrations)
            )
            outcome = "ok"
            self._last_contact = max(self._last_contact, report.at)
            if reply.full_sync:
                self._memory.full_sync, self._memory.next_regular = True, self._world.monotonic()
            self._cancel(reply)
        except (RejectedError, MalformedMessageError) as error:
            if report.registrations == self._link.registrations:
                self._refused(error, Backoff(self._link.settings.calls))
        except TransportError as error:
            self._log_broken(error)
        finally:
            self._count(metrics.HEARTBEATS, outcome)

    def _count(self, metric: metrics.Metric, outcome: str) -> None:
        self._link.telemetry.metrics.count(metric, self._link.label, outcome)

    def _refused(self, error: RejectedError | MalformedMessageError, backoff: Backoff) -> bool:
        """Decide what a refused heartbeat means; return whether to register again."""
        delay, now = delay_after(backoff, error, self._link.world), self._world.monotonic()
        if isinstance(error, RejectedError) and error.rate_limited:
            self._memory.limited(now, delay)
            _log.info(
                "%s accepts no more heartbeats for %.0f s; until then, registrations keep the worker's lease alive",
                self._link.url,
                delay,
                extra={"action": "heartbeats_limited"},
            )
            return False
        self._memory.failed(now, delay)
        self._link.faults.log(
            _log,
            logging.WARNING,
            "heartbeat to %s refused: %s",
            self._link.url,
            error,
            action="heartbeat_failed",
            kind=kind_of(error),
        )
        if now - self._last_contact > _HALF_LEASE or isinstance(error, RejectedError):
            self._link.contact_broken()
            return True
        return False


def _announce(registration: WorkerRegistration, state: WorkerState) -> WorkerRegistration:
    return msgspec.structs.replace(registration, available_skills=state.available_skills, hot_skills=state.hot_skills)


def _with_status(state: WorkerState, status: WorkerStatus) -> WorkerState:
    return msgspec.structs.replace(state, status=status)


def _hint(error: WorkerError, url: str) -> str:
    """Describe an error, with a hint if the user can do something about it."""
    if isinstance(error, RejectedError) and error.unauthorized:
        return f"{error} (is WORKER_TOKEN, or its fallback, the orchestrator's, and is this machine's clock right?)"
    if isinstance(error, RejectedError) and error.status == 404:
        return f"{error} (is ORCHESTRATOR_URL right, including its path prefix?)"
    if isinstance(error, ConnectionFailedError) and url.startswith("https:"):
        return f"{error} (is ORCHESTRATOR_URL right, and does it use https? worker doctor can diagnose this)"
    if isinstance(error, ConnectionFailedError):
        return f"{error} (is ORCHESTRATOR_URL right, and is the orchestrator running?)"
    return str(error)
