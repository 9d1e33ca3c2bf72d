"""The connections of one event loop: reused while possible, and closed when the loop ends at the latest."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, Callable

from avtomatika_worker.transport.connection import Connection
from avtomatika_worker.transport.dialing import dial
from avtomatika_worker.transport.route import Route


class Pool:
    """Connections along ``route``, one per call in flight, for one event loop.

    ``on_dropped`` is called with the seconds that a connection had been idle when the other side closed it.
    """

    def __init__(
        self,
        route: Route,
        max_answer: int,
        idle_timeout: float,
        on_closed: Callable[[Pool], None],
        on_dropped: Callable[[float], None],
    ) -> None:
        self.route: Route = route
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._max_answer = max_answer
        self._idle_timeout = idle_timeout
        self._on_closed = on_closed
        self._on_dropped = on_dropped
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._ending: AsyncGenerator[None] | None = None
        self._closed = False

    def take(self) -> Connection | None:
        """Return an idle connection that can still be used, if there is one."""
        while self._idle:
            connection = self._idle.pop()  # the most recently used one: the others may expire
            if connection.route is self.route and connection.is_alive():
                return connection
            connection.abort()
        return None

    async def connect(self, timeout: float) -> Connection:
        """Establish a connection within ``timeout`` seconds. Raises `ConnectionFailedError`."""
        if self._ending is None:
            self._ending = self._until_the_loop_ends()
            await anext(self._ending)
        route, made = self.route, list[Connection]()

        def make() -> Connection:
            made.append(Connection(route, self._max_answer, self._idle_timeout, self._remember, self._forget))
            return made[0]

        try:
            # In a new context: the connection would otherwise keep the caller's alive, with all that it refers to.
            return await self.loop.create_task(dial(route, make, timeout), context=contextvars.Context())
        except BaseException:
            # If cancelled in the iteration in which it connects, uvloop (0.23) closes it without `connection_lost`.
            for connection in made:
                connection.discard()
            raise

    def give_back(self, connection: Connection) -> None:
        """Take back a connection whose call completed."""
        if connection.route is self.route and connection.rest():
            self._idle.append(connection)
        else:
            connection.abort()

    def use(self, route: Route) -> None:
        """Connect along another route from now on. Calls in flight finish on their connections."""
        self.route = route
        for connection in self._idle:
            connection.abort()

    async def close(self) -> None:
        """Close all connections and wait for that. Calls in flight fail."""
        if self._ending is not None:
            await self._ending.aclose()

    def abort(self) -> None:
        """Start closing all connections."""
        for connection in list(self._all):
            connection.abort()

    def _remember(self, connection: Connection) -> None:
        self._all.add(connection)
        if self._closed:  # meanwhile
            connection.abort()

    def _forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
        if connection.rested is not None and connection.route is self.route:
            self._on_dropped(connection.rested)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        """Close all connections at the end: an event loop's asynchronous generators are closed before the loop is."""
        try:
            yield
        finally:
            self._closed = True
            self._on_closed(self)
            self.abort()
            for connection in list(self._all):
                await connection.closed.wait()
