"""Keeps the members running: starts them, restarts crashed ones, replaces them one by one, ends them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from avtomatika_worker._sockets import socket_directory
from avtomatika_worker._waiting import first_of
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.fleet.member_process import Process, start
from avtomatika_worker.fleet.members import Member, MemberState, Place
from avtomatika_worker.fleet.members_health import FleetHealth, is_ready
from avtomatika_worker.fleet.membership import Command, Ready
from avtomatika_worker.monitoring.health import HealthServer
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.worker.program import (
    EXIT_CRASHED,
    EXIT_FORCED,
    EXIT_LOST,
    EXIT_OK,
    EXIT_USAGE,
    explain,
)
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.fleet")

STARTING_LIMIT: Final = 10.0
"""Seconds that a member that has not said hello may take to end: it has not begun anything."""

FORCED_LIMIT: Final = 10.0
"""Seconds that a shortened shutdown may take before the process is killed."""

LAST_WORDS: Final = 1.0
"""Seconds for reading what an ended member has reported, should a process that it has forked hold its connection."""

ROLL_NOTICE: Final = 30.0
"""Seconds after which the log says that a rolling restart is still waiting for a member to become ready."""

_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0
"""Seconds between checks of whether a new member is ready: they grow."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run in each place. ``base_id`` is the id before a place's suffix unless a setting names one."""

    command: tuple[str, ...]
    environ: Mapping[str, str]
    places: tuple[Place, ...]
    base_id: str
    health_check: bool = True


class Fleet:
    """The processes of ``worker run --workers N``.

    ``start`` starts one, as `member_process.start`; ``is_ready`` asks one, in a thread.
    """

    def __init__(
        self,
        plan: Plan,
        world: World = REAL,
        *,
        start: Callable[..., Awaitable[Process]] = start,
        is_ready: Callable[[Process], bool] = is_ready,
    ) -> None:
        self._plan = plan
        self._world = world
        self._start = start
        self._is_ready = is_ready
        self._seats = [Member(number, place) for number, place in enumerate(plan.places, 1)]
        self._generation = 0
        self._directory = Path()
        self._first_hello: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._stop, self._force, self._kill = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._roll = asyncio.Event()
        self._may_begin = asyncio.Event()
        self._verdict: int | None = None
        self._codes: set[int] = set()

    async def run(self) -> int:
        """Run until stopped; return the exit code. No member is left when this returns or raises."""
        with socket_directory() as directory:
            self._directory = Path(directory)
            try:
                await self._keep_all()
            finally:
                for seat in self._seats:
                    if seat.process is not None:
                        seat.process.kill()
        return self._exit_code()

    def stop(self) -> None:
        """Let every member drain; on the second call, cut that short; on the third, kill them."""
        if self._force.is_set():
            self._kill.set()
        elif self._stop.is_set():
            self._force.set()
        else:
            _log.info("shutting down %d worker processes", self._running(), extra={"action": "fleet_stopping"})
            self._stop.set()

    def roll(self) -> None:
        """Replace every member with a new one, one after another. If that is already in progress, start over."""
        if not self._stop.is_set():
            self._generation += 1
            self._roll.set()

    # -------------------------------------------------------------------------------------------------- keeping

    async def _keep_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            aside = [group.create_task(self._roll_when_asked()), group.create_task(self._serve_health())]
            await asyncio.wait([group.create_task(self._keep(seat)) for seat in self._seats])
            for task in aside:
                task.cancel()

    async def _serve_health(self) -> None:
        """Answer on the port in the first member's settings."""
        hello = await asyncio.shield(self._first_hello)
        if not self._plan.health_check:
            self._may_begin.set()
            return
        health = FleetHealth(self._seats, self._stop.is_set)
        server = HealthServer(hello.health_host, hello.port, health, health.scrape if hello.metrics else None)
        try:
            server.open()
            self._may_begin.set()
            await server.run()
        except ConfigError as error:
            explain(error)
            self._give_up(EXIT_USAGE)

    async def _keep(self, seat: Member) -> None:
        """Keep a process in ``seat`` until stopped. The first one shows whether the configuration is valid at all."""
        if seat.number > 1:
            await first_of(partial(asyncio.wait, {self._first_hello}), self._stop.wait)
        while not self._stop.is_set():
            began = self._world.monotonic()
            code = await self._run_once(seat)
            if self._stop.is_set():
                self._codes.add(code)
            elif seat.process is not None and seat.process.preempted:
                self._leave(seat, code)
                return
            elif seat.replacing:
                seat.replacing = False
            elif code == EXIT_USAGE:
                await self._leave_empty(seat)
            else:
                await self._wait_to_restart(seat, code, self._world.monotonic() - began)

    async def _run_once(self, seat: Member) -> int:
        """Run one process to its end and return its exit code."""
        seat.starts += 1
        seat.state = MemberState.STARTING
        plan, socket_path = self._plan, self._directory / f"{seat.number}.{seat.starts}.sock"
        environ, suffix = {**plan.environ, **seat.place.environ}, seat.place.suffix
        try:
            process = await self._start(
                plan.command, environ, suffix, plan.base_id, socket_path, generation=self._generation
            )
        except OSError as error:
            _log.error("%s cannot be started: %s", seat.name, error, extra={"action": "process_failed"})
            return EXIT_CRASHED
        seat.taken_by(process)
        works = (self._greet(seat, process), self._end_when_asked(process))
        aside = [asyncio.create_task(each) for each in works]  # noqa: TID251 - waited for below, whatever they raise
        try:
            code = await process.ended()
            await asyncio.wait(aside[:1], timeout=LAST_WORDS)
        finally:
            for task in aside:
                task.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
        seat.last_exit = code
        if self._stop.is_set() and code == -signal.SIGTERM:
            return EXIT_OK  # systemd signals all processes of a unit; this one had not begun, or it would have drained
        if code == EXIT_LOST:
            self._codes.add(code)
        return EXIT_FORCED if process.killed else code

    async def _greet(self, seat: Member, process: Process) -> None:
        hello = await process.greeted()
        if hello is None:
            return
        seat.worker_id = hello.worker_id
        if seat.state is MemberState.STARTING:
            seat.state = MemberState.RUNNING
        if not self._first_hello.done():
            configure_logging(hello.log_format, hello.log_level, background=True)
            _log.info("keeping %d worker processes", len(self._seats), extra={"action": "fleet_started"})
            self._first_hello.set_result(hello)
        _log.info(
            "%s runs as process %d",
            seat.name,
            process.pid,
            extra={"action": "process_started", "worker_id": seat.name, "pid": process.pid},
        )
        await first_of(self._may_begin.wait, process.gone.wait)
        process.order(Command.GO)
        await process.hear()

    async def _wait_to_restart(self, seat: Member, code: int, ran_for: float) -> None:
        delay = seat.restarts.ended(ran_for, self._world.random.random())
        seat.state = MemberState.WAITING
        _log.log(
            logging.ERROR if code else logging.WARNING,
            "%s ended by itself, %s (%d in a row); restarting it in %.1f s",
            seat.name,
            _reported(code),
            seat.restarts.in_a_row,
            delay,
            extra={"action": "process_ended", "worker_id": seat.name, "exit_code": code, "delay": round(delay, 3)},
        )
        await self._pause(seat, delay)
        seat.restarted += 1

    async def _leave_empty(self, seat: Member) -> None:
        """Leave empty a seat whose process finds its configuration wrong: a restart would not change that."""
        seat.state = MemberState.EMPTY
        if seat.starts == 1 or self._nobody_comes():
            self._give_up(EXIT_USAGE)
            return
        _log.critical(
            "%s does not start: its configuration, its app or a skill is wrong now. The others keep running."
            " Fix it and send SIGHUP",
            seat.name,
            extra={"action": "process_misconfigured", "worker_id": seat.name},
        )
        await self._pause(seat, None)

    def _leave(self, seat: Member, code: int) -> None:
        """Do not restart a process that has left: the machine is taken away. The last one to leave ends the fleet."""
        seat.state = MemberState.LEFT
        self._codes.add(code)
        _log.warning(
            "%s has left, as this machine is taken away, %s: it is not restarted",
            seat.name,
            _reported(code),
            extra={"action": "process_left", "worker_id": seat.name, "exit_code": code},
        )
        if self._nobody_comes():
            self._stop.set()

    def _nobody_comes(self) -> bool:
        """Whether every process has left, or does not start with this configuration."""
        return all(each.state in {MemberState.LEFT, MemberState.EMPTY} and each.starts for each in self._seats)

    async def _pause(self, seat: Member, seconds: float | None) -> None:
        """Wait this many seconds, or until a rolling restart reaches the seat or the fleet stops."""
        seat.wake.clear()
        await first_of(seat.wake.wait, self._stop.wait, timeout=seconds)

    # -------------------------------------------------------------------------------------------------- ending

    async def _end_when_asked(self, process: Process) -> None:
        await self._stop.wait()
        await self._end(process)

    async def _end(self, process: Process) -> None:
        """End a member gracefully; cut that short if it takes too long, and kill it if that does not help."""
        limit = STARTING_LIMIT if process.hello is None else process.hello.drain_limit
        process.order(Command.DRAIN)
        if await _gone(process, limit, self._force):
            return
        process.order(Command.FORCE)
        if await _gone(process, FORCED_LIMIT, self._kill):
            return
        _log.error("process %d does not end: killing it", process.pid, extra={"action": "process_killed"})
        process.kill()
        await process.gone.wait()

    def _give_up(self, code: int) -> None:
        """End everything, with this exit code."""
        self._verdict = code
        self._stop.set()

    def _exit_code(self) -> int:
        """Return the exit code for the worst of the members' ends."""
        if self._verdict is not None:
            return self._verdict
        if EXIT_LOST in self._codes:
            return EXIT_LOST
        if self._codes - {EXIT_OK, EXIT_FORCED}:
            return EXIT_CRASHED
        return max(self._codes, default=EXIT_OK)

    def _running(self) -> int:
        return sum(seat.process is not None and seat.process.runs for seat in self._seats)

    # -------------------------------------------------------------------------------------------------- rolling

    async def _roll_when_asked(self) -> None:
        while True:
            await self._roll.wait()
            self._roll.clear()
            await self._roll_once(self._generation)

    async def _roll_once(self, generation: int) -> None:
        _log.info("rolling restart of %d worker processes", len(self._seats), extra={"action": "roll_started"})
        for seat in self._seats:
            if seat.state is MemberState.LEFT:
                continue
            await self._renew(seat, generation)
            if not await self._is_back(seat, generation):
                if seat.state is MemberState.EMPTY:
                    _log.error("the rolling restart stopped at %s", seat.name, extra={"action": "roll_stopped"})
                return
        _log.info("the rolling restart is done", extra={"action": "roll_finished"})

    async def _renew(self, seat: Member, generation: int) -> None:
        """End the seat's process, so that it gets a new one; a seat waiting for a restart gets it at once."""
        process = seat.process
        if process is None or not process.runs:
            seat.restarts.forget()
            seat.state = MemberState.STARTING
            seat.wake.set()
        elif process.generation < generation:
            seat.replacing, seat.state = True, MemberState.ENDING
            await self._end(process)

    async def _is_back(self, seat: Member, generation: int) -> bool:
        """Wait until the seat's new process is ready; return False if there is no point in waiting.

        One that was being started when the roll reached the seat is as old as the others, and is ended, too.
        """
        notice, pause = self._world.monotonic() + ROLL_NOTICE, _FIRST_LOOK
        while generation == self._generation and seat.state not in {MemberState.EMPTY, MemberState.LEFT}:
            process = seat.process
            if process is not None and process.runs and process.generation < generation:
                await self._renew(seat, generation)
            has_new = process is not None and process.generation >= generation and process.hello is not None
            if process is not None and has_new and await asyncio.to_thread(self._is_ready, process):
                return True
            if self._world.monotonic() > notice:
                notice = float("inf")
                _log.warning(
                    "the rolling restart is waiting for %s to become ready", seat.name, extra={"action": "roll_waits"}
                )
            await asyncio.sleep(pause)
            pause = min(_LONGEST_LOOK, pause * 1.5)
        return False


async def run_fleet(plan: Plan) -> int:
    """Run a fleet under the process's signals: SIGTERM and SIGINT stop it, SIGHUP triggers a rolling restart."""
    fleet, loop, hang_up = Fleet(plan), asyncio.get_running_loop(), _HangUp()
    loop.add_signal_handler(signal.SIGTERM, fleet.stop)
    loop.add_signal_handler(signal.SIGINT, fleet.stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: fleet.stop() if hang_up.is_meant() else fleet.roll())
    return await fleet.run()


class _HangUp:
    """Distinguishes the SIGHUP of a closed terminal from one sent as an order."""

    def __init__(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
        self._had_terminal = not ignored and _has_terminal()

    def is_meant(self) -> bool:
        """Whether the terminal has been closed."""
        return self._had_terminal and not _has_terminal()


def _has_terminal() -> bool:
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    os.close(descriptor)
    return True


async def _gone(process: Process, seconds: float, unless: asyncio.Event) -> bool:
    """Wait this many seconds for a process to end, or until ``unless`` is set; return whether it has ended."""
    await first_of(process.gone.wait, unless.wait, timeout=seconds)
    return process.gone.is_set()


def _reported(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"
