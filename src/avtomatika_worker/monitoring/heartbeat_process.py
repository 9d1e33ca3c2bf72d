"""The worker's side of the heartbeat process: starts it, updates it, listens to it and restarts it.

That process sends heartbeats and answers health checks while something holds the GIL and no thread of the worker can
run. The worker never waits for it: while it is down, everything works as without it. Runs on the link thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from avtomatika_worker import threadsafe
from avtomatika_worker._forks import close_in_forked_children
from avtomatika_worker.link.heartbeats import Heartbeats
from avtomatika_worker.link.keepalive import KeepAlive, Report
from avtomatika_worker.monitoring.health import Health, HealthServer
from avtomatika_worker.monitoring.stand_in import LONGEST_LINE, PULSE
from avtomatika_worker.policy.restarts import Restarts

_log: Final = logging.getLogger("avtomatika_worker.heartbeat_process")

_PROGRAM: Final = str(Path(__file__).with_name("heartbeat_program.py"))

HUNG_AFTER: Final = 50
"""Consecutive lines without an echo after which it counts as hung: 10 s."""

HELD_NOTICE: Final = 2.0
"""Seconds without a turn of the link thread that are logged."""

_HEALTH_EVERY: Final = 5
"""One in this many lines carries the health."""

_END_TIMEOUT: Final = 2.0
_CATCH_UP_TIMEOUT: Final = 1.0
_LOOK: Final = 0.01

_INHERITED: Final = frozenset(
    {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ"}
)
"""The environment variables it gets: none has a token."""


class ProxyPlan(msgspec.Struct, frozen=True):
    """The proxy on the way to an orchestrator."""

    url: str
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"ProxyPlan(url={self.url!r})"


class OrchestratorPlan(msgspec.Struct, frozen=True):
    """An orchestrator's address."""

    url: str
    proxy: ProxyPlan | None

    def __repr__(self) -> str:
        return "OrchestratorPlan()"


class TlsPlan(msgspec.Struct, frozen=True):
    """Paths of PEM files."""

    ca: str | None
    cert: str | None
    key: str | None


class Plan(msgspec.Struct, frozen=True):
    """The constants of a run. ``limit``: seconds of the worker's silence after which it counts as dead."""

    orchestrators: tuple[OrchestratorPlan, ...]
    tls: TlsPlan
    user_agent: str
    limit: float
    metrics: bool


class _Line(msgspec.Struct, frozen=True):
    """A line from the worker; ``forms`` are those that have changed."""

    pulse: int
    forms: list[tuple[int, KeepAlive | None]]
    health: Health | None


class _Heard(msgspec.Struct, frozen=True):
    """A line from the process: one of these."""

    echo: int | None = None
    report: Report | None = None
    fault: str | None = None


_decoder: Final = msgspec.json.Decoder(_Heard)


class HeartbeatProcess:
    """Keeps the process running, with ``heartbeats`` in the order of the plan's orchestrators."""

    def __init__(
        self,
        plan: Plan,
        heartbeats: Sequence[Heartbeats],
        health: HealthServer | None,
        probe: Callable[[], Health],
        running_skills: Callable[[], Iterable[str]],
    ) -> None:
        self._plan = plan
        self._heartbeats = heartbeats
        self._health = health
        self._probe = probe
        self._running_skills = running_skills
        self._child: _Child | None = None
        self._forms: list[KeepAlive | None] = []
        self._echoed: threadsafe.Watch[int] = threadsafe.Watch(0)
        self._pulses = 0
        self._turn_at = time.monotonic()
        self._ceased = False

    @property
    def pid(self) -> int | None:
        """The process's id, or None without a process."""
        return None if self._child is None else self._child.pid

    async def run(self) -> None:
        """Keep it running until cancelled, then end it."""
        restarts = Restarts()
        while True:
            began = time.monotonic()
            why = await self._run_once()
            delay = restarts.ended(time.monotonic() - began, random.random())
            _log.error(
                "the heartbeat process %s; it starts again in %.1f s, until when code that holds the GIL stops"
                " heartbeats and health",
                why,
                delay,
                extra={"action": "heartbeat_process_ended"},
            )
            await asyncio.sleep(delay)

    def cease(self) -> None:
        """Stop its heartbeats: the worker itself sends the last one."""
        self._ceased = True
        if self._child is not None:
            self._publish(self._child)

    async def caught_up(self) -> None:
        """Wait briefly until it has reported everything so far. May be awaited in any event loop."""
        number, until = self._pulses + 1, time.monotonic() + _CATCH_UP_TIMEOUT  # its echo comes after that
        while self._child is not None and (left := until - time.monotonic()) > 0:
            seen = self._echoed.version
            if self._echoed.value >= number:
                return
            await self._echoed.changed(seen, left)

    async def _run_once(self) -> str:
        """Run it to its end; return how it ended."""
        try:
            child = await _Child.start(None if self._health is None else self._health.descriptor)
        except OSError as error:
            return f"cannot be started ({error})"
        child.write(self._plan)
        self._child, self._forms = child, [None] * len(self._heartbeats)
        self._pulses, self._turn_at = 0, time.monotonic()
        self._echoed.publish(0)
        try:
            return await self._accompany(child)
        except Exception:  # noqa: BLE001 - the worker continues without it
            _log.error(
                "the heartbeat process said what the worker cannot deal with: this is a bug of theirs",
                exc_info=True,
                extra={"action": "heartbeat_process_failed"},
            )
            child.kill()
            return f"{child.pid} is killed"
        finally:
            self._child = None
            await child.end()

    async def _accompany(self, child: _Child) -> str:
        """Write to it and read from it until it ends or stops answering; return how it ended."""
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(child), name="heartbeat process")
            while not reading.done():
                self._look_at_turns()
                if self._pulses - self._echoed.value > HUNG_AFTER:
                    child.kill()
                    reading.cancel()
                    return f"{child.pid} does not answer and is killed"
                self._publish(child)
                await asyncio.wait({reading}, timeout=PULSE)
        return reading.result()

    def _look_at_turns(self) -> None:
        """Log that the worker was blocked: it could not do so meanwhile."""
        now = time.monotonic()
        held, self._turn_at = now - self._turn_at - PULSE, now
        if held < HELD_NOTICE:
            return
        _log.error(
            "the worker was held up for %.1f s: code that holds the GIL, or it was stopped (running skills: %s). Such"
            ' code belongs in a skill with executor="process"',
            held,
            ", ".join(sorted(set(self._running_skills()))) or "none",
            extra={"action": "worker_held_up"},
        )

    def _publish(self, child: _Child) -> None:
        """Write the next line."""
        forms = [None if self._ceased else each.keepalive() for each in self._heartbeats]
        changed = [(number, form) for number, form in enumerate(forms) if form != self._forms[number]]
        self._forms = forms
        health = self._probe() if self._pulses % _HEALTH_EVERY == 0 else None
        self._pulses += 1
        child.write(_Line(self._pulses, changed, health))

    async def _read(self, child: _Child) -> str:
        """Process its lines until it ends; return how it ended."""
        while line := await child.reader.readline():
            heard = _decoder.decode(line)
            if heard.echo is not None:
                if self._echoed.value == 0:
                    _log.info("heartbeat process %d stands by", child.pid, extra={"action": "heartbeat_process_up"})
                self._echoed.publish(heard.echo)
            if heard.report is not None:
                await self._heartbeats[heard.report.orchestrator].take(heard.report)
            if heard.fault is not None:
                _log.error(
                    "the heartbeat process failed:\n%s", heard.fault, extra={"action": "heartbeat_process_failed"}
                )
        return f"{child.pid} ended ({await child.exit_code()})"


class _Child:
    """The process and the connection to it."""

    def __init__(
        self, popen: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._popen = popen
        self.reader = reader
        self._writer = writer
        # A child forked by a skill would keep it from noticing the worker's end at once.
        self._take_back = close_in_forked_children(writer.get_extra_info("socket").fileno())

    @classmethod
    async def start(cls, listener: int | None) -> _Child:
        """Start it. ``listener`` is the descriptor of the health server's socket. Raises OSError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                popen = _start_interpreter(theirs.fileno(), listener)
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE)
        return cls(popen, reader, writer)

    @property
    def pid(self) -> int:
        """Its id."""
        return self._popen.pid

    def write(self, message: Plan | _Line) -> None:
        """Write a line; its reader may be gone."""
        self._writer.write(msgspec.json.encode(message) + b"\n")

    async def exit_code(self) -> str:
        """Wait briefly for its end, and describe how it ended."""
        await self._gone(_END_TIMEOUT)
        code = self._popen.returncode
        return "not yet" if code is None else f"by signal {-code}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End it by force."""
        self._popen.kill()

    async def end(self) -> None:
        """Close the connection, which ends it, and kill it if it does not end."""
        self._take_back()
        self._writer.close()
        if not await self._gone(_END_TIMEOUT):
            self.kill()
            await self._gone(_END_TIMEOUT)

    async def _gone(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        while self._popen.poll() is None and time.monotonic() < until:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(_LOOK)
        return self._popen.returncode is not None


def _start_interpreter(pipe: int, listener: int | None) -> subprocess.Popen[bytes]:
    # Signals to all processes of a unit or a terminal are for the worker; the process inherits them blocked.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
    numbers = (pipe, -1 if listener is None else listener, os.getpid())
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-I", "-S", _PROGRAM, *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[each for each in numbers[:2] if each >= 0],
            env={name: os.environ[name] for name in _INHERITED & os.environ.keys()},
            process_group=0,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
