"""Virtual time, and event loops that share it: which of them goes on next is drawn by lot.

A loop stands for a thread: what it has to do is done in order, and between any two of its callbacks another loop may
have its turn. Time passes only when no loop has anything to do. No thread, no socket and no clock is involved, so one
seed makes one run.
"""

import asyncio
import heapq
import itertools
import random
import socket
from collections import deque

MOST_STEPS = 2_000_000
"""Callbacks of a run; one that takes more turns in circles."""


class StuckError(Exception):
    """Nothing is left to do, and what is waited for has not come."""


class Schedule:
    """All that is going to happen, and the time. ``seed`` decides between what may happen now."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.ready = []
        self._timers = []
        self._order = itertools.count()
        self.numbers = itertools.count(1)

    def at(self, when, handle, loop):
        heapq.heappush(self._timers, (max(when, self.now), next(self._order), handle, loop))

    def run(self, done, until):
        """Go on until ``done`` is, or it is ``until``; return whether it was done. Asked whenever time passes."""
        while self.ready or not done():
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise StuckError(f"more than {MOST_STEPS} steps, at {self.now:.3f} s")
            if self.ready:
                self._step()
            elif not self._timers:
                raise StuckError(f"nothing left to do at {self.now:.3f} s")
            elif self._timers[0][0] > until:
                self.now = until
                return False
            else:
                self._pass_time()
        return True

    def _step(self):
        ready = self.ready
        index = int(self.random.random() * len(ready)) if len(ready) > 1 else 0
        loop = ready[index]
        handle = loop.waiting.popleft()
        if not loop.waiting:
            ready.pop(index)
        if not handle._cancelled:
            asyncio._set_running_loop(loop)
            try:
                handle._run()
            finally:
                asyncio._set_running_loop(None)
            loop.after_step()

    def _pass_time(self):
        self.now = self._timers[0][0]
        while self._timers and self._timers[0][0] <= self.now:
            _, _, handle, loop = heapq.heappop(self._timers)
            if not handle._cancelled:
                loop.add(handle)


class _Numbered:
    """Hashes alike in every run, so that sets are in the same order."""

    def __hash__(self):
        return self._number


class SimFuture(_Numbered, asyncio.Future):
    def __init__(self, *, loop):
        self._number = next(loop.schedule.numbers)
        super().__init__(loop=loop)


class SimTask(_Numbered, asyncio.Task):
    def __init__(self, coro, *, loop, **kwargs):
        self._number = next(loop.schedule.numbers)
        super().__init__(coro, loop=loop, **kwargs)


class SimLoop(_Numbered, asyncio.AbstractEventLoop):
    """The event loop of one thread. One that is dead does nothing any more, as if its process had been killed."""

    def __init__(self, schedule, name, network, host):
        self.schedule = schedule
        self.name = name
        self.host = host
        self.waiting = deque()
        self.dead = False
        self.errors = []
        self.tasks = []
        self._number = next(schedule.numbers)
        self._network = network
        self._paused = False
        self._countdown = None
        self._dialed = {}
        network.loops.append(self)

    # ------------------------------------------------------------------------------------------- for the simulation

    def add(self, handle):
        if self.dead:
            return
        if not self.waiting and not self._paused:
            self.schedule.ready.append(self)
        self.waiting.append(handle)

    def after_step(self):
        if self._countdown is not None:
            self._countdown[0] -= 1
            if self._countdown[0] <= 0:
                done, self._countdown = self._countdown[1], None
                done()

    def count_down(self, steps, done):
        """Call ``done`` after as many steps of this loop: between any two of its callbacks."""
        self._countdown = [steps, done] if done is not None else None

    def pause(self, seconds, by):
        """Stand still, as when a skill blocks; ``by`` is the loop that goes on meanwhile."""
        if self._paused or self.dead:
            return
        self._paused = True
        if self in self.schedule.ready:
            self.schedule.ready.remove(self)

        def go_on():
            self._paused = False
            if self.waiting and not self.dead:
                self.schedule.ready.append(self)

        by.call_later(seconds, go_on)

    def kill(self):
        self.dead = True
        self.waiting.clear()
        if self in self.schedule.ready:
            self.schedule.ready.remove(self)

    # ------------------------------------------------------------------------------------------- asyncio's interface

    def time(self):
        return self.schedule.now

    def get_debug(self):
        return False

    def is_running(self):
        return True

    def is_closed(self):
        return False

    def call_soon(self, callback, *args, context=None):
        handle = asyncio.Handle(callback, args, self, context)
        self.add(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.schedule.now + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.dead:
            self.schedule.at(when, handle, self)
        return handle

    def _timer_handle_cancelled(self, handle):
        pass

    def create_future(self):
        return SimFuture(loop=self)

    def create_task(self, coro, *, name=None, context=None, **kwargs):
        task = SimTask(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        if len(self.tasks) > 10_000:
            self.tasks = [each for each in self.tasks if not each.done()]
        return task

    def get_task_factory(self):
        return None

    def run_in_executor(self, _executor, func, *args):
        future = self.create_future()

        def run():
            if future.done():
                return
            try:
                value = func(*args)
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)
            else:
                future.set_result(value)

        self.call_soon(run)
        return future

    def call_exception_handler(self, context):
        if not self.dead:
            self.errors.append(context)

    default_exception_handler = call_exception_handler

    async def shutdown_asyncgens(self):
        pass

    async def getaddrinfo(self, host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    def remove_writer(self, _):
        return False

    remove_reader = remove_writer

    # ------------------------------------------------------------------------------------------- the network

    async def sock_connect(self, sock, address):
        await self._network.reach(self, address)
        self._dialed[sock.fileno()] = address

    async def create_connection(self, factory, *, sock, **_):
        address = self._dialed.pop(sock.fileno())
        sock.close()
        return self._network.connect(self, factory, address)

    async def create_server(self, factory, *, sock, **_):
        return self._network.listen(self, factory, sock)
