"""The health server: ``/live``, ``/ready``, ``/health`` and ``/metrics``.

It runs in the link thread, so that a blocked skill is no outage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from avtomatika_worker.errors import ConfigError

if TYPE_CHECKING:
    from aiohttp import web

_log: Final = logging.getLogger("avtomatika_worker.health")


@dataclass(frozen=True, slots=True)
class Health:
    """What the worker knows of its own health. A reason is None when all is well."""

    not_live: str | None
    not_ready: str | None
    details: dict[str, Any]


class HealthServer:
    """Answers 200 or 503 with a reason; ``probe`` is asked for every request.

    ``scrape``, if there is one, returns what ``/metrics`` answers, and its content type.
    """

    def __init__(
        self, host: str, port: int, probe: Callable[[], Health], scrape: Callable[[], tuple[bytes, str]] | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._probe = probe
        self._scrape = scrape
        self.bound_port: int | None = None

    async def run(self) -> None:
        """Serve until cancelled. Raises `ConfigError` when the port cannot be had."""
        from aiohttp import web

        app = web.Application()
        app.add_routes([web.get("/live", self._live), web.get("/ready", self._ready), web.get("/health", self._health)])
        if self._scrape is not None:
            app.add_routes([web.get("/metrics", self._metrics)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port)
            try:
                await site.start()
            except OSError as error:
                problem = f"WORKER_PORT={self._port}: the health server cannot listen on {self._host}: {error.strerror}"
                raise ConfigError([f"{problem}; choose another port, 0 for any, or --no-health-check"]) from error
            self.bound_port = runner.addresses[0][1]
            _log.info("health server on port %d", self.bound_port, extra={"action": "health_server_started"})
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _live(self, _: web.Request) -> web.Response:
        return _answer(self._probe().not_live)

    async def _ready(self, _: web.Request) -> web.Response:
        return _answer(self._probe().not_ready)

    async def _metrics(self, _: web.Request) -> web.Response:
        from aiohttp import web

        body, content_type = self._scrape() if self._scrape is not None else (b"", "text/plain")
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _health(self, _: web.Request) -> web.Response:
        from aiohttp import web

        health = self._probe()
        body = {
            "live": health.not_live is None,
            "ready": health.not_ready is None,
            "not_live": health.not_live,
            "not_ready": health.not_ready,
            **health.details,
        }
        return web.json_response(body)


def _answer(problem: str | None) -> web.Response:
    from aiohttp import web

    body = {"status": "ok"} if problem is None else {"status": "failing", "reason": problem}
    return web.json_response(body, status=200 if problem is None else 503)
