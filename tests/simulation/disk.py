"""A disk in memory, in place of the outbox's SQLite file: it outlives the worker, and may be full, or hang."""

import itertools
from concurrent.futures import Future
from pathlib import Path

from avtomatika_worker.errors import StoreError


class Disk:
    """What is on it, and what ever was. ``full``: nothing more can be written. ``hangs``: nothing is answered."""

    def __init__(self, schedule):
        self.schedule = schedule
        self.rows = {}
        self.ever = []
        self.full = False
        self.hangs = False
        self.numbers = itertools.count(1)


class DiskFile:
    """A process's view of it, with the interface of `SqliteStore`. ``loop`` is the writing thread's."""

    path = Path("/simulated/outbox")

    def __init__(self, disk, loop):
        self._disk = disk
        self._loop = loop
        self._waiting = []
        self.at_once = False

    def open(self):
        return sorted(self._disk.rows.items())

    def put(self, message):
        done = Future()

        def write():
            if not done.set_running_or_notify_cancel():
                return
            if self._disk.full:
                done.set_exception(StoreError(f"{self.path}: the disk is full"))
                return
            row = next(self._disk.numbers)
            self._disk.rows[row] = message
            self._disk.ever.append(message)
            done.set_result(row)

        self._do(write)
        return done

    def forget(self, row):
        self._do(lambda: self._disk.rows.pop(row, None))

    def probe(self):
        done = Future()
        self._do(lambda: done.set_result(True))
        return done

    def check(self):
        return True

    def close(self):
        self.at_once = True
        self._work_off()

    def _do(self, work):
        if self._loop.dead:
            return
        self._waiting.append(work)
        if self.at_once:
            self._work_off()
        else:
            self._loop.call_later(0.0005 + 0.002 * self._disk.schedule.random.random(), self._turn)

    def _turn(self):
        if self._disk.hangs:
            self._loop.call_later(0.5, self._turn)
        else:
            self._work_off(1)

    def _work_off(self, most=None):
        while self._waiting and most != 0:
            self._waiting.pop(0)()
            most = None if most is None else most - 1
