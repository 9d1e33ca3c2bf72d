"""The metadata services of the clouds, as far as they announce the end of a machine: servers on loopback."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from aiohttp import web


class Aws:
    """EC2's, version 2: no answer without a token, which ends after a while."""

    def __init__(self):
        self.tokens = set()
        self.given = 0
        self.notice = None
        self.refused = 0

    def app(self):
        app = web.Application()
        app.router.add_put("/latest/api/token", self.token)
        app.router.add_get("/latest/meta-data/spot/instance-action", self.action)
        return app

    async def token(self, request):
        if not 0 < int(request.headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21600:
            raise web.HTTPBadRequest
        self.given += 1
        self.tokens.add(f"token-{self.given}")
        return web.Response(text=f"token-{self.given}")

    async def action(self, request):
        if request.headers.get("X-aws-ec2-metadata-token") not in self.tokens:
            self.refused += 1
            raise web.HTTPUnauthorized
        if self.notice is None:
            raise web.HTTPNotFound
        return web.json_response(self.notice)

    def announce(self, seconds, action="terminate"):
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        self.notice = {"action": action, "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}


class Gcp:
    """Google's: it holds a request until something changes."""

    def __init__(self):
        self.preempted = False
        self.changed = asyncio.Event()
        self.held = 0
        self.calls = 0

    def app(self):
        app = web.Application()
        app.router.add_get("/computeMetadata/v1/instance/preempted", self.answer)
        return app

    async def answer(self, request):
        self.calls += 1
        if request.headers.get("Metadata-Flavor") != "Google":
            raise web.HTTPForbidden
        tag = "after" if self.preempted else "before"
        if request.query.get("wait_for_change") == "true" and request.query.get("last_etag") == tag:
            self.held += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), float(request.query["timeout_sec"]))
        tag = "after" if self.preempted else "before"
        text = "TRUE" if self.preempted else "FALSE"
        return web.Response(text=text, headers={"Metadata-Flavor": "Google", "ETag": tag})

    def announce(self, _seconds=30):
        self.preempted = True
        self.changed.set()


class Azure:
    """Azure's scheduled events: those of all machines of a set."""

    def __init__(self):
        self.events = []
        self.calls = 0

    def app(self):
        app = web.Application()
        app.router.add_get("/metadata/instance/compute/name", self.name)
        app.router.add_get("/metadata/scheduledevents", self.answer)
        return app

    def check(self, request):
        if request.headers.get("Metadata") != "true" or "api-version" not in request.query:
            raise web.HTTPBadRequest

    async def name(self, request):
        self.check(request)
        return web.Response(text="machine-1")

    async def answer(self, request):
        self.check(request)
        self.calls += 1
        return web.json_response({"DocumentIncarnation": len(self.events), "Events": self.events})

    def announce(self, seconds, kind="Preempt", machine="machine-1"):
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        self.events.append(
            {
                "EventId": f"event-{len(self.events)}",
                "EventType": kind,
                "ResourceType": "VirtualMachine",
                "Resources": [machine],
                "EventStatus": "Scheduled",
                "NotBefore": format_datetime(at, usegmt=True),
                "Description": "",
                "EventSource": "Platform",
                "DurationInSeconds": -1,
            }
        )


@contextlib.asynccontextmanager
async def serving(cloud):
    """Serve a cloud's metadata on loopback; yield the base URL."""
    runner = web.AppRunner(cloud.app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # noqa: SLF001 - aiohttp says it nowhere else
    finally:
        await runner.cleanup()
