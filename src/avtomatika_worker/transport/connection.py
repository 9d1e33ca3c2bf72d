"""One connection to an orchestrator, which carries one call at a time."""

from __future__ import annotations

import asyncio
import contextvars
import math
import select
from collections.abc import Callable
from typing import Final

from avtomatika_worker._forks import close_in_forked_children
from avtomatika_worker.errors import CallTimedOutError, ConnectionFailedError, TransportError
from avtomatika_worker.transport.failures import describe
from avtomatika_worker.transport.parsing import AnswerParser
from avtomatika_worker.transport.route import Route

SMALL: Final = 64 * 2**10
"""Bytes up to which an answer is read without reserving memory for it."""

IDLE_TIMEOUT: Final = 50.0
"""Seconds for which an idle connection is kept: common servers and proxies keep theirs for a minute or more."""

_FRESH: Final = 1 / 50
"""Share of the idle timeout for which an idle connection may be used without checking it first."""


class Connection(asyncio.Protocol):
    """Sends a request and reads its answer, which is then in ``answer``.

    ``on_open`` is called when it can carry calls, ``on_closed`` when it has ended; ``closed`` is set then. ``rested``:
    how many seconds it had been idle when the other side closed it; None for any other end.
    """

    def __init__(
        self,
        route: Route,
        max_answer: int,
        idle_timeout: float,
        on_open: Callable[[Connection], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self.route = route
        self.answer: AnswerParser = AnswerParser(max_answer)
        self.closed: asyncio.Event = asyncio.Event()
        self.rested: float | None = None
        self._on_open, self._on_closed = on_open, on_closed
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # a timer would keep the call's alive, with all it refers to
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._until = 0.0
        self._idle_timeout = idle_timeout
        self._idle_since: float | None = None
        self._asked_at = 0.0
        self._had_rested = False
        self._timeout = 0.0
        self._may_be_long = False
        self._forget_fork: Callable[[], None] | None = None

    # ------------------------------------------------------------------------------------------------- for a call

    def exchange(self, message: bytes, until: float, timeout: float, *, head: bool = False) -> asyncio.Future[bool]:
        """Send a request. The future is True once the answer is complete, False if it is long: call `read_on`.

        ``until`` is in the loop's time; ``timeout``, in seconds, is only named in the error. Raises `TransportError`,
        as does the future.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionFailedError("connection closed")
        self.answer.expect(head=head)
        self._asked_at = self._loop.time()
        self._idle_since = None
        self._may_be_long = False
        self._timeout = timeout
        transport.write(message)
        return self._outcome(until)

    def read_on(self, until: float) -> asyncio.Future[bool]:
        """Read the rest of a long answer, now that there is room. Raises `TransportError`, as does the future."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionFailedError("connection closed in the middle of an answer")
        self._may_be_long = True
        self._transport.resume_reading()
        return self._outcome(until)

    def _outcome(self, until: float) -> asyncio.Future[bool]:
        waiter = self._waiter = self._loop.create_future()
        self._until = until
        if until < self._timer_at:
            self._set_timer()
        return waiter

    def rest(self) -> bool:
        """Become idle after a call that ended well; return whether the connection can be used again."""
        transport = self._transport
        if not self.answer.reusable or transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return False
        self._idle_since = now = self._loop.time()
        self._until = now + self._idle_timeout
        if self._until < self._timer_at:
            self._set_timer()
        return True

    def is_alive(self) -> bool:
        """Return whether an idle connection, which is about to be used, still seems to be open on the other side."""
        if self._transport is None or self._transport.is_closing():
            return False
        since = self._idle_since
        self._had_rested = since is not None and self._has_rested(since)
        if not self._had_rested:
            return True
        # The loop may have been busy when the other side closed it: then the end of the stream waits to be read.
        if not _is_readable(self._transport.get_extra_info("socket").fileno()):
            return True
        self._note_rest()
        return False

    def was_stale(self) -> bool:
        """Return whether a call failed because the other side had closed the connection for being idle.

        It may have done so while the request was on its way. A call that fails later fails for another reason.
        """
        return self._had_rested and not self.answer.touched and not self._has_rested(self._asked_at)

    def _has_rested(self, since: float) -> bool:
        return self._loop.time() - since >= _FRESH * self._idle_timeout

    def discard(self) -> None:
        """End it at once, whether or not the event loop reports its end."""
        self.abort()
        self.connection_lost(None)

    def abort(self) -> None:
        """End it at once."""
        self._idle_since = None
        if self._transport is not None:
            self._transport.abort()

    # -------------------------------------------------------------------------------------------- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start. Over TLS through a proxy, this is called by `dial`."""
        if self.closed.is_set():  # discarded meanwhile
            transport.close()
            return
        self._transport = transport  # type: ignore[assignment] # uvloop's is no asyncio.Transport
        if self._forget_fork is None:
            self._forget_fork = close_in_forked_children(transport.get_extra_info("socket").fileno())
            self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """Read the next part of an answer. Bytes that are unrequested or malformed end the connection."""
        if self._waiter is None:
            self.abort()
            return
        try:
            complete = self.answer.feed(data)
        except TransportError as error:
            self._fail(error)
            return
        if complete:
            self._settle(True)
        elif not self._may_be_long and max(self.answer.size, self.answer.length or 0) > SMALL:
            if self._transport is not None:
                self._transport.pause_reading()
            self._settle(False)

    def eof_received(self) -> None:
        """Handle the end of the stream; it also ends an answer whose end nothing else marks."""
        if self._waiter is not None and self.answer.end():
            self._settle(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection. Further calls do nothing."""
        if self.closed.is_set():
            return
        if self._forget_fork is not None:
            self._forget_fork()
        if self._timer is not None:
            self._timer.cancel()
        if self._waiter is not None:
            where = "in the middle of an answer" if self.answer.touched else "before an answer came"
            text = f"connection closed {where}" + (f": {describe(exc)}" if exc is not None else "")
            self._fail(ConnectionFailedError(text))
        self._note_rest()
        self._waiter = self._transport = None
        self.closed.set()
        self._on_closed(self)

    # ------------------------------------------------------------------------------------------------- inside

    def _note_rest(self) -> None:
        """Record that the other side closed it, unless we did."""
        if self._idle_since is not None:
            self.rested = self._loop.time() - self._idle_since

    def _settle(self, complete: bool) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(complete)

    def _fail(self, error: TransportError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        self.abort()

    def _set_timer(self) -> None:
        """Check the time at ``_until``. Not needed for most calls: a timer that is due earlier sets the next one."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._until
        self._timer = self._loop.call_at(self._until, self._on_time, context=self._context)

    def _on_time(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._loop.time() < self._until:
            self._set_timer()
        elif self._waiter is not None:
            self._fail(CallTimedOutError(f"no answer within {self._timeout:g} s"))
        elif self._idle_since is not None:
            self.abort()


def _is_readable(descriptor: int) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])
