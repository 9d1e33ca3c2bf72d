"""What goes over the wire: few messages, few connections, nothing in them that says nothing."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field

import pytest

from avtomatika_worker import PermanentError, TaskContext
from avtomatika_worker.devserver import EmbeddedOrchestrator, JobState
from services.conftest import running


@dataclass
class Relay:
    """Passes connections on to an orchestrator, and keeps what the worker sent over each."""

    target: int
    url: str = ""
    sent: list[bytearray] = field(default_factory=list)

    async def connected(self, reader, writer):
        self.sent.append(kept := bytearray())
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, there_writer, kept), pump(there_reader, writer, bytearray()))

    @property
    def requests(self):
        """All requests so far, but what follows a WebSocket's handshake: method, path, body."""
        return [request for connection in self.sent for request in split(bytes(connection))]

    def bodies(self, method, path):
        return [json.loads(body) for verb, where, body in self.requests if verb == method and path in where]


def split(data):
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        method, path, _ = first.split(" ")
        yield method, path, rest[:length]
        data = b"" if "upgrade" in headers else rest[length:]


async def pump(reader, writer, kept):
    try:
        while data := await reader.read(2**16):
            kept += data
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def relayed(orchestrator):
    relay = Relay(int(orchestrator.url.rpartition(":")[2]))
    async with await asyncio.start_server(relay.connected, "127.0.0.1", 0) as server:
        relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield relay


def nulls(value, path="$"):
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from nulls(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from nulls(item, f"{path}[{index}]")


@pytest.mark.parametrize("websockets", [True, False])
async def test_no_body_holds_a_null(worker, version, websockets):
    @worker.skill
    async def talk(*, ctx: TaskContext):
        await ctx.send_progress(0.5, None)
        await ctx.send_event("said", {"what": None, "more": {"nothing": None}})
        return {"kept": 1, "dropped": None}

    @worker.skill(description=None)
    async def fail():
        raise PermanentError("no")

    async with EmbeddedOrchestrator(version=version, poll_time=1.0) as orchestrator, relayed(orchestrator) as relay:
        async with running(worker, orchestrator, orchestrator_url=relay.url, enable_websockets=websockets):
            assert (await orchestrator.submit("talk").done()).state is JobState.FINISHED
            assert (await orchestrator.submit("fail").done()).state is not JobState.FINISHED
        bodies = [json.loads(body) for _, _, body in relay.requests if body]
        kinds = {(method, path.rpartition("/")[2]) for method, path, body in relay.requests if body}
    assert kinds == {("POST", "register"), ("PATCH", "w1"), ("POST", "events"), ("POST", "result")}
    assert [found for body in bodies for found in nulls(body)] == []


@pytest.mark.patient
async def test_connections_are_reused_and_tasks_cost_a_poll_and_a_result(orchestrator, worker):
    slots, rounds = 4, 40

    @worker.skill
    async def echo(n: int):
        return {"n": n}

    async with (
        relayed(orchestrator) as relay,
        running(worker, orchestrator, orchestrator_url=relay.url, max_concurrent_tasks=slots),
    ):
        for _ in range(rounds):
            jobs = [orchestrator.submit("echo", {"n": n}) for n in range(slots)]
            for job in jobs:
                await job.done()
        requests, connections = relay.requests, len(relay.sent)
    tasks = slots * rounds
    results = sum(path.endswith("/tasks/result") for _, path, _ in requests)
    polls = sum("/tasks/next" in path for _, path, _ in requests)
    assert results == tasks
    assert tasks <= polls <= tasks + 4 * slots
    # One each for what may be under way at once: polls, results of the round before, heartbeats, the WebSocket.
    assert connections <= 2 * slots + 2


async def test_tasks_that_leave_the_worker_idle_cost_no_heartbeats(orchestrator, worker):
    @worker.skill
    async def echo():
        return {}

    async with relayed(orchestrator) as relay, running(worker, orchestrator, orchestrator_url=relay.url):
        for _ in range(50):
            await orchestrator.submit("echo").done()
        assert len(relay.bodies("PATCH", "/workers/w1")) == 1


async def test_capabilities_are_sent_again_only_after_a_registration(orchestrator, worker):
    @worker.skill
    async def echo():
        return {}

    async with (
        relayed(orchestrator) as relay,
        running(worker, orchestrator, orchestrator_url=relay.url, heartbeat_interval=0.05),
    ):
        await orchestrator.wait_for(lambda: len(relay.bodies("PATCH", "/workers/w1")) > 3)
        first, *others = relay.bodies("PATCH", "/workers/w1")
        assert first["capabilities"]["websockets"] is True
        assert not any("capabilities" in each for each in others)


async def test_without_a_websocket_a_registration_says_everything(orchestrator, worker):
    @worker.skill
    async def echo():
        return {}

    options = {"heartbeat_interval": 0.05, "enable_websockets": False}
    async with relayed(orchestrator) as relay, running(worker, orchestrator, orchestrator_url=relay.url, **options):
        await orchestrator.wait_for(lambda: len(relay.bodies("PATCH", "/workers/w1")) > 2)
        assert not any("capabilities" in each for each in relay.bodies("PATCH", "/workers/w1"))
