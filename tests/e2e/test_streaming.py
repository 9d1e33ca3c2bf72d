"""Streams at released orchestrators with their default limits, as a client hears them; and through the relay."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

import aiohttp
import pytest

from cluster.environments import ROOT
from cluster.processes import ManagedProcess, free_port
from e2e.client import Webhooks, client_of
from e2e.fleet import Fleet, Orchestrator

COUNT, RATE = 60, 30
TEXT = "".join(f"token-{number} " for number in range(COUNT))


async def test_a_stream_arrives_within_the_default_limits(
    fleet: Fleet, orchestrator: Orchestrator, webhooks: Webhooks
) -> None:
    strict = fleet.start_orchestrator(orchestrator.version, RATE_LIMITING_ENABLED=True)
    worker = fleet.start_worker(strict, "streaming", app="streaming_app")
    params = {"count": COUNT, "rate": RATE}
    async with client_of(strict.url) as client:
        job_id = await client.submit(worker.skill("tokens"), params, webhook_url=webhooks.url)
        assert await webhooks.until_ended(job_id, timeout=30.0) == "job_finished"
    chunks = webhooks.events(job_id, "chunk")
    assert "".join(chunk["data"] for chunk in chunks) == TEXT
    assert [chunk["index"] for chunk in chunks] == list(range(len(chunks)))
    assert 3 < len(chunks) < 30  # every token alone would use up the limit, and more
    assert webhooks.ended_last(job_id)
    assert "HTTP 429" not in worker.process.output()
    worker.process.kill()
    strict.process.kill()


async def test_a_worker_that_is_killed_leaves_ordered_chunks_and_the_retry_has_a_higher_number(
    fleet: Fleet, orchestrator: Orchestrator, webhooks: Webhooks
) -> None:
    soon = fleet.start_orchestrator(orchestrator.version, WORKER_TIMEOUT_SECONDS=2, WATCHER_INTERVAL_SECONDS=1)
    first = fleet.start_worker(soon, "killed", app="streaming_app")
    async with client_of(soon.url) as client:
        params = {"count": 45, "rate": RATE}
        job_id = await client.submit(first.skill("tokens"), params, webhook_url=webhooks.url)
        await webhooks.until_events(job_id, "chunk", 2)
        first.process.kill()
        second = fleet.start_worker(soon, "killed", skills_of=first, app="streaming_app")
        assert await webhooks.until_ended(job_id, timeout=30.0) == "job_finished"
    chunks = webhooks.events(job_id, "chunk")
    attempts = {
        attempt: list(group) for attempt, group in itertools.groupby(chunks, key=lambda chunk: chunk["attempt"])
    }
    assert list(attempts) == sorted(attempts)
    assert len(attempts) == 2
    for group in attempts.values():
        assert [chunk["index"] for chunk in group] == list(range(len(group)))
    *_, last = attempts.values()
    assert "".join(chunk["data"] for chunk in last) == "".join(f"token-{number} " for number in range(45))
    second.process.kill()
    soon.process.kill()


@pytest.mark.since("1.0b30")
async def test_the_relay_turns_them_into_server_sent_events(
    fleet: Fleet, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    worker = fleet.start_worker(orchestrator, "relayed", app="streaming_app", SKILL_PREFIX="")
    port = free_port()
    env = {"ORCHESTRATOR_URL": orchestrator.url, "RELAY_PORT": str(port), "BLUEPRINT": "speak"}
    relay = ManagedProcess("relay", [sys.executable, str(ROOT / "examples" / "relay.py")], env=env, cwd=tmp_path)
    try:
        await asyncio.to_thread(relay.wait_for_line, lambda line: "Running on" in line, timeout=20.0)
        url = f"http://127.0.0.1:{port}/stream?prompt=to+be+or+not"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            lines = (await answer.text()).splitlines()
    finally:
        relay.kill()
        worker.process.kill()
    assert lines[0] == "event: chunk"
    assert '"data": "to be or not"' in lines[1]
    assert "event: end" in lines
    assert '"event": "job_finished"' in lines[-2]
