"""What the state machines share: loops in virtual time, and a transport whose calls a machine answers."""

import asyncio
import contextlib
import json
import os
import random
from types import SimpleNamespace

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from avtomatika_worker.errors import CallTimedOutError, ConnectionFailedError
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.world import World
from services.scripted import GOOD, VERSION, kind_of
from simulation.schedule import Schedule, SimLoop

START = 1_800_000_000.0
"""Unix time at the start."""

NEVER = 1e9


def run_machine(machine, *, examples, steps=30):
    """Run a machine, with as many examples as `MACHINE_EXAMPLES` says if it says anything."""
    examples = int(os.environ.get("MACHINE_EXAMPLES", examples))
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=steps))


class Stage:
    """A process's main loop and link loop, which take turns as ``seed`` decides, and its world."""

    def __init__(self, seed=0):
        self.schedule = Schedule(seed)
        self.wall_ahead = 0.0
        self.random = random.Random(seed)
        self.failures = []
        self.world = World(self.time, self.time, lambda: START + self.time() + self.wall_ahead, self.random)
        self.begin_life()

    def begin_life(self):
        """Give a new process its loops."""
        network = SimpleNamespace(loops=[])
        self.main, self.link = (SimLoop(self.schedule, name, network, "worker") for name in ("main", "link"))
        self.main.call_at(NEVER, lambda: None)  # so that there is always something to wait for

    def end_life(self):
        """End the process as a kill does: nothing of it goes on."""
        for loop in (self.main, self.link):
            loop.kill()

    def drop(self):
        """Free what the killed process was about to do. Its files are somebody else's by now."""
        asyncio._set_running_loop(self.main)
        try:
            for task in [*self.main.tasks, *self.link.tasks]:
                task._log_destroy_pending = False
                with contextlib.suppress(BaseExceptionGroup, RuntimeError):  # it cannot wait for anything any more
                    if not task.done():
                        task.get_coro().close()
        finally:
            asyncio._set_running_loop(None)

    def time(self):
        return self.schedule.now

    def settle(self, seconds=0.0):
        """Let time pass, and all happen that happens by then."""
        self.schedule.run(lambda: False, self.schedule.now + seconds)
        for loop in (self.main, self.link):
            assert not loop.errors, loop.errors
        if self.failures:
            raise self.failures[0]

    @contextlib.contextmanager
    def noting(self):
        """Have the machine fail with what is asserted inside, whatever the worker makes of it."""
        try:
            yield
        except AssertionError as failure:
            self.failures.append(failure)
            raise

    def call(self, loop, function, *args):
        """Call a function on a loop, and let all happen that it leads to at once; return its value."""
        returned = []
        loop.call_soon(lambda: returned.append(function(*args)))
        self.settle()
        return returned[0]

    def begin(self, loop, coroutine):
        """Return a task that runs on a loop, from the next step on."""
        return self.call(loop, loop.create_task, coroutine)


class Call:
    """A call in flight."""

    def __init__(self, request, headers, now):
        self.kind = kind_of(request.method, request.path)
        self.path = request.path
        self.headers = headers
        self.body = json.loads(request.body) if request.body else {}
        self.at = now
        self._answered = asyncio.get_running_loop().create_future()

    def answer(self, status=200, body=None, **headers):
        """Answer it. Without a body, it is a good one; a header that is None is left out."""
        body = GOOD.get(self.kind, {}) if body is None else body
        headers = {"x-rxon-version": VERSION, **headers}
        headers = {name: value for name, value in headers.items() if value is not None}
        self._set(Response(status, headers, b"" if status == 204 else encode(body)))

    def fail(self):
        """Break its connection."""
        self._set(ConnectionFailedError("broken"))

    def _set(self, outcome):
        if not self._answered.done():
            if isinstance(outcome, Exception):
                self._answered.set_exception(outcome)
            else:
                self._answered.set_result(outcome)

    async def answered(self):
        return await self._answered


def encode(body):
    return json.dumps(body).encode()


class Wire:
    """Takes the place of the transport: calls are in flight until a machine answers them.

    ``on_call`` is called with each, and may answer it at once; ``on_timeout`` with one that has waited for too long.
    """

    def __init__(self, stage, on_call, on_timeout=lambda call: None):
        self._stage = stage
        self._on_call = on_call
        self._on_timeout = on_timeout
        self.in_flight = []

    def open(self):
        pass

    async def close(self):
        for call in self.in_flight:
            call.fail()

    async def send(self, request, headers, timeout):
        call = Call(request, headers, self._stage.time())
        self.in_flight.append(call)
        with self._stage.noting():
            self._on_call(call)
        try:
            async with asyncio.timeout(timeout):
                return await call.answered()
        except TimeoutError:
            self._on_timeout(call)
            raise CallTimedOutError(f"no answer within {timeout:g} s") from None
        finally:
            self.in_flight.remove(call)
