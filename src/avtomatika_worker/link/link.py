"""The link to one orchestrator: its dialect, token, clock and state. Used from both loops."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlsplit

from avtomatika_worker import threadsafe
from avtomatika_worker.errors import (
    AnswerTooLongError,
    MalformedMessageError,
    RejectedError,
    TransportError,
    UntrustedTaskError,
)
from avtomatika_worker.link.access_tokens import REFUSED, token_renewed
from avtomatika_worker.link.call_budgets import KindBudget
from avtomatika_worker.link.clock import Clock
from avtomatika_worker.link.credentials import Credentials, make_nonces
from avtomatika_worker.link.isolation import contained
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.link.silence import SILENT_AFTER, Silence
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.log_throttle import LogThrottle
from avtomatika_worker.observability.telemetry import OFF, Telemetry
from avtomatika_worker.policy.backoff import LONGEST_WAIT
from avtomatika_worker.policy.link_state import LinkEvent, LinkState, step
from avtomatika_worker.policy.token_bucket import TokenBucket
from avtomatika_worker.protocol import dialects, replies
from avtomatika_worker.protocol.codec import Codec, Request
from avtomatika_worker.protocol.messages import Event, EventReply, ResultReply, Task, TaskResult, TokenReply
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.protocol.width import MOST_VALUES, is_too_wide
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.link")

CALL_TIMEOUT: Final = 30.0
"""Timeout in seconds for any call except a poll."""

POLL_MARGIN: Final = 90.0
"""Seconds that a poll may exceed the requested time: orchestrators may use their own; dropping it can lose a task."""

_LONG: Final = 256 * 2**10
"""Size in bytes above which the response to a poll is parsed in a thread."""


class Link:
    """One orchestrator as this worker sees it.

    ``ready``: polls are allowed. ``broken``: the worker must register again. ``known``: it has registered at some time.
    ``contacts`` is touched by each registration; ``breaks`` counts losses of contact; ``polled`` is whether a poll was
    answered since the last registration. ``url``, the orchestrator's base URL, names the link in logs, ``label`` in
    metrics. ``events`` and ``results`` are the budgets for those calls.

    Calls may come from the main loop (polls, results, events) and from the link thread (registration, heartbeats);
    their shared state is guarded by a lock that is never held while waiting.
    """

    def __init__(
        self,
        settings: LinkSettings,
        worker_id: str,
        transport: HttpTransport,
        telemetry: Telemetry = OFF,
        world: World = REAL,
    ) -> None:
        self.settings = settings
        self.world = world
        self.url: str = settings.url
        self.label: str = urlsplit(settings.url).netloc.rpartition("@")[2]
        self.telemetry: Telemetry = telemetry
        self.faults: LogThrottle = LogThrottle(world.monotonic)
        self.event_tokens: TokenBucket = TokenBucket(settings.event_rate)
        silence = settings.calls.rate_limit_floor
        self.events: KindBudget = KindBudget(settings.rate_limit, silence, world.monotonic)
        self.results: KindBudget = KindBudget(settings.rate_limit, silence, world.monotonic)
        self.worker_id = worker_id
        self.dialect: dialects.Dialect = dialects.NEUTRAL
        self.clock: Clock = Clock(settings.url, wall=world.wall, steady=world.steady)
        self.ready: threadsafe.Event = threadsafe.Event()
        self.broken: threadsafe.Event = threadsafe.Event()
        self.known: threadsafe.Event = threadsafe.Event()
        self.contacts: threadsafe.Watch[int] = threadsafe.Watch(0)
        self.caught_up: Callable[[], Awaitable[None]] = _nobody
        """Waits for pending reports of the heartbeat process, if there is one. May be awaited in any event loop."""
        self.breaks: int = 0
        self.polled: bool = False
        self._silence = Silence(world.monotonic)
        self._announces = True
        self._registrations = 0
        self._transport = transport
        self.credentials: Credentials = Credentials(settings.token, settings.token_fallback, world)
        nonces = make_nonces(world)
        self._codecs = {token: Codec(worker_id, token, nonces) for token in self.credentials.all_configured}
        self._state = LinkState.CONNECTING
        self._lock = threading.Lock()
        self._announced: str | None = None
        self._unfamiliar: str | None = None
        self._date_header: str | None = None
        self._lost_at = 0.0
        self._registration_failed = False
        self._reading = ThreadPoolExecutor(1, "reading")  # skills may have exhausted asyncio's default pool

    @property
    def state(self) -> LinkState:
        """The state of the link."""
        return self._state

    @property
    def reachable(self) -> bool:
        """Whether the orchestrator is reachable. A break does not count as an outage at once; silence does."""
        if self.ready.is_open:
            return not self._silence.lasts
        return not self._registration_failed and self.world.monotonic() - self._lost_at < SILENT_AFTER

    @property
    def registrations(self) -> int:
        """How many times the worker has registered."""
        return self._registrations

    @property
    def codec(self) -> Codec:
        """Encodes this link's requests, signed with the configured token in use."""
        return self._codecs[self.credentials.configured]

    def now(self) -> float:
        """Return the orchestrator's time in Unix seconds, estimated from its responses."""
        return self.clock.now()

    def headers(self) -> Mapping[str, str]:
        """Return the headers for every call, including the current span's."""
        return self._headers(self.codec, self.credentials.current)

    def _headers(self, codec: Codec, token: str | None) -> Mapping[str, str]:
        headers = codec.headers(token, self.dialect)
        span = self.telemetry.tracing.carrier()
        return {**headers, **span} if span else headers

    # ------------------------------------------------------------------------------------------------------ state

    def registered(self, version: str, tokens: TokenReply | None = None, *, announced: bool = True) -> None:
        """Record an accepted registration: from now on the link speaks the orchestrator's dialect.

        ``tokens`` are those it granted; if None, those of an earlier registration are forgotten. ``announced`` is
        whether the response had the version header; if a proxy strips it, the link manages without.
        """
        if tokens is None:
            self.credentials.forget_granted()
        else:
            self.credentials.granted(tokens)
        choice = dialects.choose(version)
        with self._lock:
            unfamiliar = not choice.exact and version != self._unfamiliar
            self._unfamiliar = None if choice.exact else version
            self.dialect = choice.dialect
            self._announced, self._announces = version, announced
            self.polled = False
            self._registrations += 1  # before the first poll can go out
            self._registration_failed = False
            self._step(LinkEvent.REGISTRATION_ACCEPTED)
            self.known.open()
        self.contacts.touch()
        if unfamiliar:
            text = "%s speaks protocol version %s, which this worker does not know; treating it as %s"
            known = choice.dialect.version
            _log.warning(text, self.url, version, known, extra={"action": "protocol_version_unknown"})

    def contact_broken(self, registrations: int | None = None) -> None:
        """Record a break: the orchestrator may have lost the worker, so it registers again (RXON.md, Behaviour 4).

        ``registrations`` is their number when the call that found the break was made: if there has been another since
        then, this does nothing.
        """
        with self._lock:
            if self._state is LinkState.CLOSED or registrations not in {None, self._registrations}:
                return
            if self._state is LinkState.REGISTERED:
                self.breaks += 1
                self._lost_at = self._silence.answered_at if self._silence.lasts else self.world.monotonic()
            self._step(LinkEvent.CONTACT_BROKEN)

    def registration_failed(self) -> None:
        """Record that a registration failed."""
        with self._lock:
            self._registration_failed = True

    def drain(self) -> None:
        """Take no new tasks from this orchestrator."""
        with self._lock:
            if self._state is not LinkState.CLOSED:
                self._step(LinkEvent.DRAIN)

    def _step(self, event: LinkEvent) -> None:
        """Move to the next state, and set the gates that depend on it. Called with the lock held."""
        self._state = step(self._state, event)
        self.ready.set(is_open=self._state is LinkState.REGISTERED)
        if event in {LinkEvent.CONTACT_BROKEN, LinkEvent.REGISTRATION_ACCEPTED}:  # even while draining
            self.broken.set(is_open=event is LinkEvent.CONTACT_BROKEN)

    def open(self) -> None:
        """Prepare to connect. Raises OSError or `ConfigError` for unusable TLS files."""
        with self._lock:
            self._lost_at = self.world.monotonic()
        self._transport.open()

    def reopen(self) -> None:
        """Use new connections from now on. Raises what `open` raises."""
        self._transport.open()

    async def close(self) -> None:
        """Close the connections; nothing more is sent."""
        with self._lock:
            self._step(LinkEvent.CLOSE)
        self._reading.shutdown(wait=False)
        await self._transport.close()

    # ------------------------------------------------------------------------------------------------------ calls

    @contained
    async def poll(self, available: tuple[str, ...], hot: tuple[str, ...]) -> Task | None:
        """Ask for a task, and return it, or None if there was none in time.

        Raises `UntrustedTaskError` for a task that must not run, in addition to what `call` raises.
        """
        wish = self.settings.poll_timeout
        began, outcome = self.world.monotonic(), "failed"
        try:
            response = await self._ask(
                lambda codec: codec.poll(wish, available, hot, self.dialect), wish + POLL_MARGIN, breaks_on_500=True
            )
            if response.status == 204 and self._announces and not response.from_orchestrator:
                raise MalformedMessageError("not from an orchestrator: a 204 without a protocol version (a portal?)")
            admit = self.settings.guard.admit
            if len(response.body) <= _LONG:
                task = admit(response, self.dialect)
            else:  # one at a time, in a thread, which keeps the loop free
                reading = asyncio.get_running_loop().run_in_executor
                task = await reading(self._reading, admit, response, self.dialect)
            if not self.polled:
                with self._lock:
                    self.polled = True
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
            if self.telemetry is not OFF:
                self.telemetry.metrics.count(metrics.POLLS, self.label, outcome)
                self.telemetry.metrics.time(metrics.POLL_DURATION, self.world.monotonic() - began, self.label)
        return task

    @contained
    async def send_result(self, result: TaskResult) -> ResultReply:
        """Sign and deliver a result. Raises `TransportError`, `MalformedMessageError`, `UnsendableValueError`."""
        with self.results:
            return replies.decode_result(await self._ask(lambda codec: codec.result(result, self.dialect, self.now())))

    @contained
    async def send_event(self, event: Event) -> EventReply:
        """Sign and deliver an event. Raises what `send_result` raises."""
        with self.events:
            return replies.decode_event(await self._ask(lambda codec: codec.event(event, self.dialect, self.now())))

    @contained
    async def ask(
        self, write: Callable[[], Request], *, timeout: float = CALL_TIMEOUT, breaks_on_500: bool = False
    ) -> Response:
        """Send the request that ``write`` returns; if the access token is refused, renew it and send another request.

        Raises what `call` and ``write`` raise.
        """
        return await self._ask(lambda _: write(), timeout, breaks_on_500=breaks_on_500)

    @contained
    async def call(
        self,
        request: Request,
        *,
        timeout: float = CALL_TIMEOUT,
        breaks_on_500: bool = False,
        configured_token: bool = False,
    ) -> Response:
        """Send a request; return the response, whatever its status, and learn from it. Raises `TransportError`.

        A 500 counts as a break only with ``breaks_on_500``: orchestrators also answer 500 to a result that they cannot
        process. ``configured_token``: authenticate with the configured token instead of an access token. A call made
        before the last registration never counts as a break, since that registration was answered later.
        """
        return await self._ask(
            lambda _: request, timeout, breaks_on_500=breaks_on_500, configured_token=configured_token, renew=False
        )

    async def _ask(
        self,
        write: Callable[[Codec], Request],
        timeout: float = CALL_TIMEOUT,
        *,
        breaks_on_500: bool = False,
        configured_token: bool = False,
        renew: bool = True,
    ) -> Response:
        forgotten = False
        while True:
            codec, token = self.codec, self.credentials.configured if configured_token else self.credentials.current
            request, headers = write(codec), self._headers(codec, token)
            registrations, asked = self._registrations, self.world.steady()
            question = self._silence.began() if timeout <= CALL_TIMEOUT else None  # a poll may be held for long
            try:
                response = await self._transport.send(request, headers, timeout)
            except TransportError:
                self.contact_broken(registrations)
                raise
            finally:
                if question is not None:
                    self._silence.ended(question)
            self._heard(response, asked, registrations, breaks_on_500=breaks_on_500)
            if response.status not in REFUSED:
                if forgotten:  # otherwise the refusal was not about the token
                    self.contact_broken(registrations)
                return response
            still_good = self.credentials.is_good(token)
            if not renew or not await token_renewed(self, token, response.status):
                return response
            renew, forgotten = False, still_good

    @contained
    async def relayed(self, answer: Callable[[], Response], asked: float, registrations: int) -> Response:
        """Learn from a response that the heartbeat process got, as if this link had made the call.

        ``answer`` returns it or raises `TransportError`; ``asked`` is on the steady clock. Raises what `call` raises.
        """
        try:
            response = answer()
        except TransportError:
            self.contact_broken(registrations)
            raise
        return self._heard(response, asked, registrations, breaks_on_500=True)

    def _heard(self, response: Response, asked: float, registrations: int, *, breaks_on_500: bool) -> Response:
        self._silence.answered()
        self._learn(response, asked)
        if len(response.body) > MOST_VALUES and is_too_wide(response.body):
            raise AnswerTooLongError(f"the response holds more than {MOST_VALUES:,} values")
        if response.status > 500 or (response.status == 500 and breaks_on_500):
            self.contact_broken(registrations)
        return response

    def _learn(self, response: Response, asked: float) -> None:
        """Learn the clock's offset, and whether an orchestrator of another version has replaced this one."""
        text, version = response.headers.get("date"), response.version
        if "retry-after" in response.headers:
            self._report_long_wait(response)
        if version is None and self._announces and self.known.is_open:
            return  # a proxy's clock is not the orchestrator's
        if text != self._date_header:  # another second
            with self._lock:
                self._date_header = text
            if (date := replies.parse_http_date(text)) is not None:
                self.clock.learn(date, asked)
        if version is not None and version != self._announced:
            self._learn_version(version)

    def _learn_version(self, version: str) -> None:
        with self._lock:
            before = self._announced
            if before is None or before == version:  # another thread has just learned it
                return
            self._announced = version
        _log.info(
            "%s now speaks protocol version %s instead of %s",
            self.url,
            version,
            before,
            extra={"action": "protocol_version_changed"},
        )
        self.contact_broken()

    def _report_long_wait(self, response: Response) -> None:
        wished = replies.parse_retry_after(response.headers.get("retry-after"), response.headers.get("date"))
        if response.status >= 400 and wished is not None and wished > LONGEST_WAIT:
            text = "%s asked for a pause of %.0f s (Retry-After); values over %.0f s are ignored"
            self.faults.log(_log, logging.WARNING, text, self.url, wished, LONGEST_WAIT, action="retry_after_ignored")


async def _nobody() -> None:
    """Wait for nothing."""
