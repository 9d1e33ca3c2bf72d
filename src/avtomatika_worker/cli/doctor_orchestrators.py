"""Checks an orchestrator the way a worker uses it: a real registration, a WebSocket, a last heartbeat.

The probe registers under an id of its own and without skills, so no task is ever sent to it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
import uuid
from contextlib import aclosing
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from avtomatika_worker._version import __version__
from avtomatika_worker._waiting import first_of
from avtomatika_worker.cli.findings import Finding, Severity, error, note, ok, warning
from avtomatika_worker.config import OrchestratorSettings, Settings
from avtomatika_worker.errors import ConfigError, MalformedMessageError, RejectedError, TransportError, WorkerError
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.observability.host import detect_host
from avtomatika_worker.policy.call_budget import UNLIMITED
from avtomatika_worker.protocol import dialects, replies
from avtomatika_worker.protocol.codec import commands_path
from avtomatika_worker.protocol.messages import Heartbeat, WorkerRegistration, WorkerStatus
from avtomatika_worker.skills.binding import Injectables
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.transport.tls import TlsFiles
from avtomatika_worker.transport.websocket import listen
from avtomatika_worker.worker.announcement import announce
from avtomatika_worker.worker.make_links import guard_of

_TIMEOUT: Final = 10.0
_CLOCK_LIMIT: Final = 60.0
_SET_TOKEN: Final = "set WORKER_TOKEN to the orchestrator's"  # noqa: S105 - advice
_OWN_ID: Final = "run doctor with --own-id, which registers as WORKER_ID itself (a running worker notices it briefly)"


async def examine(orchestrator: OrchestratorSettings, settings: Settings, *, own_id: bool) -> tuple[Finding, ...]:
    """Return the findings about one orchestrator."""
    in_clear = await _in_clear(orchestrator.url)
    bound = settings.individual_token is not None or settings.tls_cert_path is not None
    if bound and not own_id:
        text = "not tried: an individual token or a client certificate belongs to WORKER_ID alone"
        return (*in_clear, note(text, _OWN_ID))
    probe = settings if own_id else replace(settings, worker_id=f"doctor-{uuid.uuid4().hex[:12]}")
    tls = TlsFiles(settings.tls_ca_path, settings.tls_cert_path, settings.tls_key_path)
    logging.getLogger("avtomatika_worker").addHandler(logging.NullHandler())  # the findings report it
    try:
        registration = announce(probe, SkillRegistry(Injectables()), {}, detect_host()).registration
        transport = HttpTransport(orchestrator.url, user_agent=f"avtomatika-worker/{__version__} doctor", tls=tls)
        link_settings = LinkSettings(
            orchestrator.url,
            orchestrator.token,
            orchestrator.token_fallback,
            guard=guard_of(orchestrator, settings),
            rate_limit=orchestrator.call_limit,
        )
        link = Link(link_settings, probe.worker_id, transport)
        link.open()
    except (ConfigError, OSError) as problem:
        return (*in_clear, error(str(problem), "fix the files that TLS_CA_PATH, TLS_CERT_PATH and TLS_KEY_PATH name"))
    try:
        return (*in_clear, *await _Examination(link, registration, settings, tls).findings())
    finally:
        await link.close()


async def _in_clear(url: str) -> tuple[Finding, ...]:
    """Report traffic that others can read on its way: that may be intended on a private network, but nowhere else."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        return ()
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 80)
    except (OSError, UnicodeError):
        return ()  # reported anyway as unreachable
    addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    if all(each.is_loopback for each in addresses):
        return ()
    text = "the connection has no TLS: anyone on the path can read the token, tasks and results"
    if all(each.is_private or each.is_link_local for each in addresses):
        return (note(f"{text} (a private network)", "have it serve https, unless you trust that network"),)
    return (warning(text, "have it serve https, and set ORCHESTRATOR_URL to that"),)


class _Examination:
    """Checks one orchestrator step by step."""

    def __init__(self, link: Link, registration: WorkerRegistration, settings: Settings, tls: TlsFiles) -> None:
        self._link = link
        self._registration = registration
        self._settings = settings
        self._tls = tls
        self._found: list[Finding] = []

    async def findings(self) -> tuple[Finding, ...]:
        """Run the steps for as long as the next one makes sense."""
        try:
            version = await self._register()
        except RejectedError as problem:
            self._found.append(await self._refused(problem))
        except MalformedMessageError as problem:
            self._found.append(error(f"the answer is {problem}", "is ORCHESTRATOR_URL that of an orchestrator?"))
        except TransportError as problem:
            advice = "check ORCHESTRATOR_URL, whether the orchestrator is running, and firewalls and proxies in between"
            self._found.append(error(f"cannot be reached: {problem}", advice))
        else:
            self._protocol(version)
            await self._websocket()
            self._polls()
            await self._leave()
        return tuple(self._found)

    async def _register(self) -> str:
        """Register, twice if the first attempt shows that the clocks differ; return the protocol's version."""
        began = time.monotonic()
        response = await self._announce()
        took = time.monotonic() - began
        offset = self._clock()
        if response.status in {401, 403} and offset:
            response = await self._announce()
        if response.status in {401, 403} and self._link.credentials.switch():
            response = await self._announce()
            if response.status in {401, 403}:
                self._link.credentials.switch()
            else:
                text = "the token is refused, but the fallback (WORKER_TOKEN_FALLBACK) is accepted"
                self._found.append(warning(text, "set WORKER_TOKEN to the fallback"))
        reply = replies.decode_registration(response)
        version = reply.version or response.version
        if version is None:
            raise MalformedMessageError("not the answer to a registration: no version")
        self._link.registered(version, reply.tokens)
        signed = "token and signature are accepted" if self._link.settings.token else "no token is required"
        self._found.insert(0, ok(f"reachable, in {took * 1000:.0f} ms; {signed}"))
        return version

    async def _announce(self) -> replies.Response:
        request = self._link.codec.register(self._registration, dialects.NEUTRAL, self._link.now())
        return await self._link.call(request, timeout=_TIMEOUT)

    def _clock(self) -> float:
        """Report how far apart the clocks are, as shown by the first answer."""
        offset = self._link.now() - time.time()
        if abs(offset) < 1:  # the header has whole seconds, so smaller ones do not show
            self._found.append(ok("the clocks agree, to about 2 s"))
            return 0.0
        text = (
            f"this machine's clock is {abs(offset):.0f} s {'behind' if offset > 0 else 'ahead of'} the orchestrator's"
        )
        if abs(offset) > _CLOCK_LIMIT:
            text += "; the first registration after each start is refused"
        self._found.append(warning(text, "synchronize the clocks (NTP); until then the worker compensates"))
        return offset

    async def _refused(self, problem: RejectedError) -> Finding:
        if problem.rate_limited:
            wait = f", for {problem.retry_after:.0f} s" if problem.retry_after is not None else ""
            return warning(f"its rate limit refuses calls{wait}: {problem}", "wait, or raise its limits")
        if problem.unauthorized:
            if self._link.settings.token is None:
                return error(
                    f"a worker without a token is refused: {problem}", "set WORKER_TOKEN to the orchestrator's"
                )
            if await self._token_is_accepted():
                advice = "check the clock, and that WORKER_TOKEN is exactly the orchestrator's configured secret"
                return error(f"the token is accepted, the signature is not: {problem}", advice)
            return error(f"the token is refused: {problem}", _SET_TOKEN)
        if problem.status == 404:
            return error(f"there is no orchestrator at this URL: {problem}", "is its path prefix right, or missing?")
        if problem.status < 400:
            return error(f"it answers with a redirect: {problem}", "set ORCHESTRATOR_URL to its target (https?)")
        if problem.status < 500:
            return error(
                f"the registration is refused: {problem}", "report this: the worker should never send such a request"
            )
        return error(f"it answers but does not work: {problem}", "check the orchestrator's log and its Redis")

    async def _token_is_accepted(self) -> bool:
        """Ask for an access token: that call carries the token but no signature."""
        try:
            response = await self._link.call(self._link.codec.access_token(), timeout=_TIMEOUT)
        except TransportError:
            return False
        return response.status < 300

    def _protocol(self, version: str) -> None:
        if self._link.settings.guard.wants_signatures and not dialects.choose(version).dialect.signed_tasks:
            text = f"protocol {version} has no signed tasks: with ORCHESTRATOR_SECRET_KEY, every task is refused"
            self._found.append(error(text, "update the orchestrator, or set REQUIRE_TASK_SIGNATURE=false"))
        if dialects.choose(version).exact:
            self._found.append(ok(f"it speaks protocol {version}"))
            return
        known = dialects.NEWEST.version
        text = f"it speaks protocol {version}, which this worker does not know; treating it as {known}"
        self._found.append(warning(text, "check for a newer avtomatika-worker"))

    async def _websocket(self) -> None:
        wanted = self._settings.enable_websockets
        problem = await self._connect()
        if problem is None and wanted:
            self._found.append(ok("the WebSocket opens: cancellation arrives at once"))
        elif problem is None:
            advice = "set WORKER_ENABLE_WEBSOCKETS=true to get cancellations at once, not with heartbeats"
            self._found.append(note("the WebSocket opens, but is not used", advice))
        else:
            advice = "let proxies pass upgrades to /_worker/ws/; until then, cancellations come with heartbeats"
            kind = Severity.WARNING if wanted else Severity.NOTE
            self._found.append(Finding(kind, f"no WebSocket: {problem}", advice))

    async def _connect(self) -> str | None:
        """Open a WebSocket and close it; return why that failed, or None."""
        url = "ws" + self._link.url.removeprefix("http") + commands_path(self._link.worker_id)
        opened = asyncio.Event()
        problem = "no answer"

        async def hold() -> None:
            nonlocal problem
            try:
                async with aclosing(listen(url, self._link.headers(), tls=self._tls, on_open=opened.set)) as messages:
                    async for _ in messages:
                        pass
            except WorkerError as found:
                problem = str(found)

        await first_of(hold, opened.wait, timeout=_TIMEOUT)
        return None if opened.is_set() else problem

    def _polls(self) -> None:
        """Point out the limit on polls. It is not tested: each poll would be held, along with a Redis connection."""
        if self._link.settings.rate_limit != UNLIMITED:
            text = "its limit on polls per worker id is unknown: it shows only when a poll is refused"
            advice = (
                "with the default, 60 until a minute passes without any, a worker id starts less than one task per"
                " second: for more, raise RATE_LIMIT_POLL_LIMIT there, or run several workers (worker run --workers 4)"
            )
            self._found.append(note(text, advice))

    async def _leave(self) -> None:
        """Send "offline", so that the probe does not stay in the orchestrator's list for a minute."""
        last = Heartbeat(
            worker_id=self._link.worker_id,
            status=WorkerStatus.OFFLINE,
            skills_hash=self._registration.skills_hash,
        )
        request = self._link.codec.heartbeat(last, self._link.dialect, self._link.now())
        try:
            replies.decode_heartbeat(await self._link.call(request, timeout=_TIMEOUT))
        except WorkerError as problem:
            text = f"a heartbeat is not accepted: {problem}"
            if isinstance(problem, RejectedError) and problem.rate_limited:
                self._found.append(warning(text, "its rate limits are too low for this worker: raise them"))
            else:
                self._found.append(error(text, "check the orchestrator's log"))
        else:
            self._found.append(ok("heartbeats are accepted; no rate limit was hit"))
