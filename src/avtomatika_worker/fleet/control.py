"""The member's side: it reports who it is, follows the fleet's orders, and does not outlive the fleet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from avtomatika_worker.fleet.membership import PREEMPTED, Command, Membership, Ready
from avtomatika_worker.supervisor import Ending
from avtomatika_worker.worker.program import EXIT_OK, Stoppable, end_by_force

_PR_SET_PDEATHSIG: Final = 1


class Control(Stoppable):
    """A member's connection to its fleet, which shuts its worker down.

    A signal and the fleet's order may have the same cause (systemd signals every process of a unit): together they
    count once. When the fleet dies, the worker drains for as long as the fleet would have allowed.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._socket = socket.socket(fileno=membership.control)
        self._thread = threading.Thread(target=self._listen, name="fleet", daemon=True)
        self._guard = threading.Lock()
        self._go = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Stoppable | None = None
        self._drain_limit = 0.0
        self._signals = 0
        self._asked = 0
        self._orphaned = False

    def start(self) -> None:
        """Listen. Until the worker runs, an order or the fleet's death ends this process at once."""
        self._socket.set_inheritable(False)
        # Importing an app may block every Python thread, and so the handlers of all other signals.
        _set_signal_at_parents_death(signal.SIGKILL)
        with contextlib.suppress(BlockingIOError):
            if not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):  # the fleet died before that line
                os._exit(EXIT_OK)
        self._thread.start()

    def greet(self, ready: Ready) -> None:
        """Report to the fleet who this is, and wait for its order to begin."""
        self._drain_limit = ready.drain_limit
        with contextlib.suppress(OSError):  # the fleet is gone: the thread knows
            self._socket.sendall(msgspec.json.encode(ready) + b"\n")
        self._go.wait()

    async def run(self, worker: Stoppable, main: Callable[[], Awaitable[None]]) -> None:
        """Run ``worker``, by ``main``, under the fleet's orders."""
        # The kernel sends it as each of the fleet's threads dies (observed).
        _set_signal_at_parents_death(0)
        with self._guard:
            self._worker, self._loop = worker, asyncio.get_running_loop()
        try:
            await main()
        finally:
            if worker.ending.preempted:
                with contextlib.suppress(OSError):
                    self._socket.sendall(PREEMPTED)
            if self._orphaned:  # no one else cleans up
                with contextlib.suppress(OSError):
                    self._membership.socket.parent.rmdir()

    def request_shutdown(self) -> None:
        """Handle a signal: the first drains, the second cuts that short. Called on the main loop."""
        self._signals += 1
        self._ask(self._signals)

    def announce_draining(self) -> None:
        """Announce that the worker is about to shut down."""
        if self._worker is not None:
            self._worker.announce_draining()

    @property
    def ending(self) -> Ending:
        """How the worker ended."""
        return Ending() if self._worker is None else self._worker.ending

    @property
    def shutdown_limit(self) -> float:
        """Limit for the shutdown, in seconds."""
        return self._drain_limit

    def rescue(self) -> None:
        """Write to disk what is not there yet."""
        if self._worker is not None:
            self._worker.rescue()

    def _ask(self, times: int) -> None:
        """Make sure that the worker has been asked this many times to shut down."""
        while self._worker is not None and self._asked < times:
            self._asked += 1
            self._worker.request_shutdown()

    # ------------------------------------------------------------------------------------------ in its thread

    def _listen(self) -> None:
        # One that dies with a report unread resets the connection.
        with contextlib.suppress(OSError), self._socket.makefile("rb") as orders:
            for line in orders:
                if line == Command.GO.value:
                    self._go.set()
                    continue
                self._obey(2 if line == Command.FORCE.value else 1)
        self._orphaned = True
        self._obey(1)
        time.sleep(self._drain_limit)
        end_by_force(self)  # the main loop is blocked; nothing else would end this process

    def _obey(self, times: int) -> None:
        with self._guard:
            loop = self._loop
            if loop is None:
                os._exit(EXIT_OK)  # nothing has begun
        with contextlib.suppress(RuntimeError):  # the worker has ended, its loop is closed
            loop.call_soon_threadsafe(self._ask, times)
        self.announce_draining()  # last, as nothing that fails in it may keep the shutdown from coming


def _set_signal_at_parents_death(number: int) -> None:
    """Make the kernel send this signal when the fleet dies, 0 for none. Must be called in the main thread."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
