"""Everything that belongs to one orchestrator: dialect, token, clock, state. Used from both loops."""

from __future__ import annotations

import itertools
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from avtomatika_worker.errors import (
    MalformedMessageError,
    RejectedError,
    TransportError,
    UntrustedTaskError,
    WorkerError,
)
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.repeats import Repeats
from avtomatika_worker.observability.telemetry import OFF, Telemetry
from avtomatika_worker.policy.backoff import Backoff, BackoffPolicy
from avtomatika_worker.policy.link_state import LinkEvent, LinkState, step
from avtomatika_worker.protocol import dialects, replies
from avtomatika_worker.protocol.codec import Codec, Request
from avtomatika_worker.protocol.messages import Event, EventReply, ResultReply, Task, TaskResult
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.protocol.trust import TaskGuard
from avtomatika_worker.services.crossing import Board, Gate
from avtomatika_worker.transport.http import HttpTransport

_log: Final = logging.getLogger("avtomatika_worker.link")

CALL_TIMEOUT: Final = 30.0
"""Seconds for any call but a poll."""

POLL_MARGIN: Final = 90.0
"""Seconds a poll may take beyond the wished time: the orchestrator has its own, and a dropped poll can lose a task."""


UNREACHABLE_AFTER: Final = 3.0
"""Seconds without contact after which an orchestrator counts as unreachable, if no attempt has failed before."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What a link is configured with. ``token`` authenticates and signs; times are in seconds."""

    url: str
    token: str | None
    heartbeat_interval: float = 15.0
    poll_timeout: float = 30.0
    registration: BackoffPolicy = field(default_factory=BackoffPolicy)
    calls: BackoffPolicy = field(default_factory=BackoffPolicy)
    guard: TaskGuard = field(default_factory=TaskGuard)

    def __repr__(self) -> str:
        return f"LinkSettings(url={self.url!r})"


class Link:
    """One orchestrator as this worker sees it.

    ``ready``: polls are welcome. ``broken``: it has to be registered at again. ``known``: it was registered at, once.
    ``contacts`` is touched by each registration. ``label`` names the orchestrator in metrics.

    Calls may come from the main loop (polls, results, events) and from the link thread (registration, heartbeats);
    what they share is guarded by a lock that is never held while waiting.
    """

    def __init__(
        self, settings: LinkSettings, worker_id: str, transport: HttpTransport, telemetry: Telemetry = OFF
    ) -> None:
        self.settings = settings
        self.label: str = urlsplit(settings.url).netloc
        self.telemetry: Telemetry = telemetry
        self.faults: Repeats = Repeats()
        self.worker_id = worker_id
        self.dialect: dialects.Dialect = dialects.NEUTRAL
        self.ready: Gate = Gate()
        self.broken: Gate = Gate()
        self.known: Gate = Gate()
        self.contacts: Board[int] = Board(0)
        self._transport = transport
        self._codec = Codec(worker_id, settings.token, _nonces())
        self._access_token: str | None = None
        self._state = LinkState.CONNECTING
        self._lock = threading.Lock()
        self._clock_offset = 0.0
        self._announced: str | None = None
        self._results_held_until = 0.0
        self._lost_at = 0.0
        self._registration_failed = False

    @property
    def url(self) -> str:
        """The orchestrator's base URL; names the link in logs."""
        return self.settings.url

    @property
    def state(self) -> LinkState:
        """Where the link stands."""
        return self._state

    @property
    def reachable(self) -> bool:
        """Whether there is contact, or may be in a moment: a break is not taken for an outage at once."""
        if self.ready.is_open:
            return True
        return not self._registration_failed and time.monotonic() - self._lost_at < UNREACHABLE_AFTER

    @property
    def codec(self) -> Codec:
        """Writes this link's requests."""
        return self._codec

    def now(self) -> float:
        """Return the orchestrator's time in Unix seconds, as far as its answers told it."""
        return time.time() + self._clock_offset

    def headers(self) -> dict[str, str]:
        """Return the headers of every call, the current span's among them."""
        headers = self._codec.headers(self._access_token or self.settings.token, self.dialect)
        headers.update(self.telemetry.tracing.carrier())
        return headers

    def hold_results(self, seconds: float) -> None:
        """Send no results for a while: the orchestrator asked for that."""
        self._results_held_until = max(self._results_held_until, time.monotonic() + seconds)

    def results_held_for(self) -> float:
        """Return the seconds for which no results go out."""
        return max(0.0, self._results_held_until - time.monotonic())

    # ------------------------------------------------------------------------------------------------------ state

    def registered(self, version: str, access_token: str | None) -> None:
        """Take note of an accepted registration: from now on the link speaks the orchestrator's dialect."""
        choice = dialects.choose(version)
        with self._lock:
            if not choice.exact and version != self._announced:
                _log.warning(
                    "%s speaks protocol version %s, which this worker does not know; it is treated as %s",
                    self.url,
                    version,
                    choice.dialect.version,
                    extra={"action": "protocol_version_unknown"},
                )
            self.dialect = choice.dialect
            self._announced = version
            self._access_token = access_token or self._access_token
            self._state = step(self._state, LinkEvent.REGISTRATION_ACCEPTED)
            opened = self._state is LinkState.REGISTERED
            self._registration_failed = False
        self.broken.close()
        self.known.open()
        if opened:
            self.ready.open()
        self.contacts.touch()

    def contact_broken(self) -> None:
        """Take note of a break: the orchestrator may have lost the worker, so it registers again (RXON.md, Beh. 4)."""
        with self._lock:
            if self._state is LinkState.CLOSED:
                return
            if self._state is LinkState.REGISTERED:
                self._lost_at = time.monotonic()
            self._state = step(self._state, LinkEvent.CONTACT_BROKEN)
        self.ready.close()
        self.broken.open()

    def registration_failed(self) -> None:
        """Take note that the orchestrator could not be registered at."""
        self._registration_failed = True

    def drain(self) -> None:
        """Take nothing new from here any more."""
        with self._lock:
            if self._state is not LinkState.CLOSED:
                self._state = step(self._state, LinkEvent.DRAIN)
        self.ready.close()

    def open(self) -> None:
        """Make ready to connect. Raises OSError or `ConfigError` for TLS files that cannot be used."""
        self._lost_at = time.monotonic()
        self._transport.open()

    async def close(self) -> None:
        """Close the connections; nothing is sent any more."""
        with self._lock:
            self._state = step(self._state, LinkEvent.CLOSE)
        self.ready.close()
        await self._transport.close()

    # ------------------------------------------------------------------------------------------------------ calls

    async def poll(self, available: tuple[str, ...], hot: tuple[str, ...]) -> tuple[Task | None, Response]:
        """Ask for a task, and return it with the answer it came in; None when there was none in time.

        Raises `UntrustedTaskError` for a task that must not run, besides what `call` raises.
        """
        wish = self.settings.poll_timeout
        request = self._codec.poll(wish, available, hot, self.dialect)
        began, outcome = time.monotonic(), "failed"
        try:
            response = await self.call(request, timeout=wish + POLL_MARGIN, breaks_on_500=True)
            task = self.settings.guard.admit(response, self.dialect)
            outcome = "empty" if task is None else "task"
        except MalformedMessageError:
            outcome = "malformed"
            raise
        except UntrustedTaskError as error:
            outcome = "untrusted"
            self.telemetry.metrics.count(metrics.TASKS_REFUSED, self.label, error.reason)
            raise
        except RejectedError as error:
            outcome = "limited" if error.rate_limited else "refused"
            raise
        finally:
            self.telemetry.metrics.count(metrics.POLLS, self.label, outcome)
            self.telemetry.metrics.time(metrics.POLL_DURATION, time.monotonic() - began, self.label)
        return task, response

    async def send_result(self, result: TaskResult) -> ResultReply:
        """Deliver a result, signed anew. Raises `TransportError`, `MalformedMessageError`, `UnsendableValueError`."""
        request = self._codec.result(result, self.dialect, self.now())
        return replies.decode_result(await self.call(request))

    async def send_event(self, event: Event) -> EventReply:
        """Deliver an event, signed anew. Raises as `send_result`."""
        request = self._codec.event(event, self.dialect, self.now())
        return replies.decode_event(await self.call(request))

    async def call(self, request: Request, *, timeout: float = CALL_TIMEOUT, breaks_on_500: bool = False) -> Response:
        """Send a request. Raises `TransportError`; an answer of any status is returned, and what it tells is learnt.

        A 500 breaks contact only where it cannot be about the message itself: a result that the orchestrator cannot
        digest is answered with 500 for ever.
        """
        try:
            response = await self._transport.send(request, self.headers(), timeout)
        except TransportError:
            self.contact_broken()
            raise
        self._learn(response)
        if response.status > 500 or (response.status == 500 and breaks_on_500):
            self.contact_broken()
        return response

    def _learn(self, response: Response) -> None:
        """Learn the clock's offset, and whether the orchestrator was replaced by one of another version."""
        date = replies.parse_http_date(response.headers.get("date"))
        if date is not None:
            # The header has whole seconds: an offset within them is noise.
            offset = date + 0.5 - time.time()
            self._clock_offset = offset if abs(offset) > 2.0 else 0.0
        version = response.version
        if version is not None and self._announced is not None and version != self._announced:
            _log.info(
                "%s now speaks protocol version %s instead of %s",
                self.url,
                version,
                self._announced,
                extra={"action": "protocol_version_changed"},
            )
            self._announced = version
            self.contact_broken()


def kind_of(error: WorkerError) -> Hashable:
    """Return what makes two errors the same fault in the log: what they are, not what they say."""
    return type(error), getattr(error, "status", None)


def _nonces() -> Callable[[], str]:
    """Return what makes nonces: no two are alike, of no two links and no two runs of a worker."""
    prefix, numbers = secrets.token_hex(12), itertools.count()
    return lambda: f"{prefix}{next(numbers):x}"


def delay_after(backoff: Backoff, error: WorkerError) -> float:
    """Count a failure and return the seconds to wait before the next attempt."""
    if not isinstance(error, TransportError):
        return backoff.failed(random.random())
    limited = isinstance(error, RejectedError) and error.rate_limited
    return backoff.failed(random.random(), retry_after=error.retry_after, rate_limited=limited)
