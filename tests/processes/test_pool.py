"""The pool of processes against processes that are slow, fail, crash and linger: no device is given twice."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import random
import weakref
from collections import Counter
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.errors import ProcessStartError, TaskError
from avtomatika_worker.execution.processes.process_pool import Processes
from avtomatika_worker.execution.processes.process_room import ProcessRoom
from avtomatika_worker.observability.devices import Accelerator

VISIBLE = "CUDA_VISIBLE_DEVICES"
SIZE = 2
PATIENCE = 2000
"""Turns of the loop after which whoever still waits would wait indefinitely."""


class Machine:
    """Where processes live, what they do, and how much of each device is in use."""

    def __init__(self, rnd, *, faults=True):
        self.rnd, self.faults = rnd, faults
        self.living = {}
        self.overbooked = []
        self.used = weakref.WeakSet()

    def make(self, ended, children):
        return Simulated(self, ended)

    def chance(self, percent):
        return self.faults and self.rnd.randrange(100) < percent

    async def turns(self, most):
        for _ in range(self.rnd.randint(0, most)):
            await asyncio.sleep(0)

    def check(self):
        use = Counter()
        for process in self.living:
            use.update({device: min(process.gpus, 1) for device in process.devices})
        if any(each > 1.001 for each in use.values()) or sum(not process.gpus for process in self.living) > SIZE:
            self.overbooked.append(use)


class Simulated:
    """A process as the pool sees it."""

    def __init__(self, machine, ended):
        self.machine, self.ended = machine, ended
        self.counts, self.spent, self.pid = Counter(), False, 1
        self.up, self.busy, self.dying = False, False, False
        self.gone = asyncio.get_running_loop().create_future()

    @property
    def alive(self):
        return self.up and not self.dying

    async def start(self, spec, spawner, environ):
        machine = self.machine
        await machine.turns(2)
        if machine.chance(5):
            raise ProcessStartError("no descriptors") from OSError(errno.EMFILE, "too many")
        self.gpus, self.devices = spec, environ[VISIBLE].split(",") if spec else []
        machine.living[self] = None
        machine.check()
        try:
            await machine.turns(6)
            if machine.chance(10):
                raise ProcessStartError("an import failed")
        except BaseException:
            await self.put_down()
            raise
        self.up = True
        if machine.chance(5):  # it ends right after its start
            self.kill()

    async def run(self, until, grace):
        assert not self.busy
        assert not self.gone.done(), "a task was given to a process that is gone"
        self.busy = True
        self.counts["skill"] += 1
        self.machine.used.add(self)
        try:
            await self.machine.turns(8)
            if until is not None:
                await until.wait()
            self.spent = self.machine.chance(10)
            if self.machine.chance(10):
                self.die()
                raise TaskError("it crashed")
        except asyncio.CancelledError:
            if self.machine.chance(50):
                await self.put_down()
            raise
        finally:
            self.busy = False

    def kill(self):
        if not self.dying:
            self.dying = True
            self.dies = asyncio.ensure_future(self._die_later())

    async def _die_later(self):
        await self.machine.turns(10)
        self.die()

    def die(self):
        self.dying = True
        if not self.gone.done():
            self.gone.set_result(None)
            self.machine.living.pop(self, None)
            if self.up:
                self.ended(self)

    async def put_down(self):
        if self in self.machine.living:
            self.kill()
            await asyncio.wait({self.gone})

    async def end(self, timeout):
        await self.machine.turns(5)
        await self.put_down()


def skill(gpus, most=None):
    options = SimpleNamespace(gpus=gpus or None, cancel_grace=1, max_tasks_per_child=most)
    return SimpleNamespace(options=options, contract=SimpleNamespace(name="skill"))


def pool_on(machine, devices, kinds, *, prestart=False):
    found = [Accelerator(f"gpu{number}", {VISIBLE: str(number)}) for number in range(devices)]
    room = ProcessRoom(SIZE, found, mixed=len({*kinds} - {0}) > 1)
    specs = {each: each for each in sorted(kinds)}
    return Processes(specs, room, prestart=prestart, make=machine.make), room


async def run(pool, wanted, until=None):
    try:
        await pool.run(wanted, until)
    except TaskError as error:
        return error.code
    return "done"


async def idle(tasks):
    """Wait until all tasks have ended, and the pool has no more to do."""
    for _ in range(PATIENCE):
        await asyncio.sleep(0)
        if all(task.done() for task in tasks):
            break
    assert all(task.done() for task in tasks), "a task waits for a process that nobody starts"
    await turns()


async def turns():
    for _ in range(PATIENCE // 10):
        await asyncio.sleep(0)


@given(st.integers(0, 2**32), st.data())
def test_no_device_is_given_away_twice_and_every_task_gets_its_turn(seed, data):
    devices = data.draw(st.integers(1, 3))
    kinds = data.draw(st.sets(st.sampled_from([0, 0.3, 0.5, 0.7, *range(1, devices + 1)]), min_size=1, max_size=4))
    count = data.draw(st.integers(1, 25))
    whole = data.draw(st.booleans())

    async def attack():
        rnd = random.Random(seed)
        machine = Machine(rnd)
        pool, room = pool_on(machine, devices, kinds, prestart=machine.chance(50))
        with contextlib.suppress(ProcessStartError):
            await pool.open()
        tasks = []
        for _ in range(count):
            wanted = skill(rnd.choice(sorted(kinds)), rnd.choice([None, 1, 3]))
            tasks.append(asyncio.ensure_future(run(pool, wanted)))
            await machine.turns(3)
            if machine.chance(20):
                rnd.choice(tasks).cancel()
            if machine.living and machine.chance(5):
                next(iter(machine.living)).kill()
        if whole:
            await idle(tasks)
        await pool.close()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, str | asyncio.CancelledError) for each in ends), ends
        for _ in range(20):
            await asyncio.sleep(0)
        assert not machine.living
        assert not machine.overbooked
        if whole:  # the room of all that is gone is there for others
            for each in kinds:
                holding = room.take(each)
                assert holding is not None, each
                room.give_back(holding)
            assert all(room.take(1) is not None for _ in range(devices))

    asyncio.run(attack())


async def test_nothing_is_kept_of_processes_that_are_gone():
    machine = Machine(random.Random(7))
    pool, _ = pool_on(machine, 1, [1])
    await pool.open()
    ends = Counter([await run(pool, skill(1, most=1)) for _ in range(40)])
    await turns()
    assert len(ends) > 1, "some have crashed"
    gc.collect()
    assert {*machine.used} <= {*machine.living}
    await pool.close()


async def test_a_process_without_devices_is_replaced_while_others_wait_for_devices():
    machine = Machine(random.Random(7), faults=False)
    pool, _ = pool_on(machine, 1, [0, 1])
    await pool.open()
    until = asyncio.Event()
    tasks = [asyncio.ensure_future(run(pool, skill(1), until)) for _ in range(2)]
    await turns()
    await run(pool, skill(0, most=1))
    await turns()
    assert sum(not process.gpus for process in machine.living) == 1
    until.set()
    assert await asyncio.gather(*tasks) == ["done", "done"]
    await pool.close()


async def test_tasks_one_after_another_never_need_a_second_process():
    """A task that arrives while a process ends has another started, which replaces it."""
    machine = Machine(random.Random(7), faults=False)
    pool, _ = pool_on(machine, 0, [0])
    await pool.open()
    for _ in range(20):
        assert await run(pool, skill(0, most=1)) == "done"
    await turns()
    assert len(machine.living) == 1
    await pool.close()


async def test_as_many_as_were_needed_at_once_are_replaced():
    machine = Machine(random.Random(7), faults=False)
    pool, _ = pool_on(machine, 0, [0])
    await pool.open()
    for _ in range(5):
        assert await asyncio.gather(*(run(pool, skill(0, most=1)) for _ in range(2))) == ["done", "done"]
        await turns()
        assert len(machine.living) == 2
    await pool.close()
