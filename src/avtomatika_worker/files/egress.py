"""The only way from obstore to the network: a forward proxy on loopback, in its own thread.

obstore follows redirects to any host, reads answers of any size, and allocates as much memory as an answer's head
announces: a single answer can end the process. It has no switch for any of that, but it has a proxy setting. So this
proxy decides: each store client has a `Route`, which names the store, the hosts that issue credentials for it, and how
much they may send. obstore sends its store requests here in plain HTTP; the proxy speaks TLS to the store, reads the
heads of answers and counts their bodies. Hosts that issue credentials are reached through tunnels.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from avtomatika_worker.files.egress_route import Route
from avtomatika_worker.files.relay import STALL_TIMEOUT, FromClient
from avtomatika_worker.files.upstream import ProxyFor, no_proxy

_START_TIMEOUT: Final = 10.0


class EgressProxy:
    """The proxy. It starts when the first URL is requested."""

    def __init__(self, proxy_for: ProxyFor = no_proxy, *, stall_timeout: float = STALL_TIMEOUT) -> None:
        self._proxy_for = proxy_for
        self._stall_timeout = stall_timeout
        self._routes: WeakValueDictionary[str, Route] = WeakValueDictionary()
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    def url(self, route: Route) -> str:
        """Return the proxy's URL for a route, which lives as long as it is referenced. Blocks until the proxy runs."""
        with self._guard:
            if self._loop is None:
                self._start()
            self._routes[route.key] = route
        return f"http://route:{route.key}@127.0.0.1:{self._port}"

    def close(self) -> None:
        """End all connections. A later request starts the proxy again."""
        with self._guard:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_START_TIMEOUT)

    def _start(self) -> None:
        started: Future[tuple[asyncio.AbstractEventLoop, int]] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="files-egress", daemon=True)
        self._thread.start()
        self._loop, self._port = started.result(_START_TIMEOUT)

    def _run(self, started: Future[tuple[asyncio.AbstractEventLoop, int]]) -> None:
        loop = asyncio.new_event_loop()
        open_connections: dict[FromClient, None] = {}  # the oldest first
        try:
            make = partial(
                FromClient, loop, self._routes, self._proxy_for, open_connections, stall_timeout=self._stall_timeout
            )
            server = loop.run_until_complete(loop.create_server(make, "127.0.0.1", 0))
        except BaseException as error:  # noqa: BLE001 - it is passed to the waiter
            started.set_exception(error)
            loop.close()
            return
        started.set_result((loop, server.sockets[0].getsockname()[1]))
        try:
            loop.run_forever()
        finally:
            server.close()
            for each in list(open_connections):
                each.abort()
            loop.run_until_complete(_end_all())
            loop.close()


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # aborted transports close their sockets in the loop's next turn
