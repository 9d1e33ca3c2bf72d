"""The load that heartbeats report."""

import asyncio
import threading

import pytest

from avtomatika_worker import Worker
from services.conftest import actions, running


def reported(orchestrator):
    return [
        call.json["usage"]
        for call in orchestrator.requests
        if call.call == "heartbeat" and "usage" in (call.json or {})
    ]


async def test_the_machines_load_is_reported(orchestrator, worker):
    async with running(worker, orchestrator, heartbeat_interval=0.1):
        await orchestrator.wait_for(lambda: reported(orchestrator))
    assert reported(orchestrator)[0]["ram_used_gb"] > 0
    assert 0 <= reported(orchestrator)[0]["cpu_load_percent"] <= 100


async def test_a_load_that_stays_is_reported_once(orchestrator, worker):
    worker.set_usage_checker(lambda: {"cpu_load_percent": 12.5, "ram_used_gb": 3})
    async with running(worker, orchestrator, heartbeat_interval=0.05):
        await orchestrator.wait_for(lambda: reported(orchestrator))
        seen = len(orchestrator.requests)
        await orchestrator.wait_for(lambda: len(orchestrator.requests) > seen + 10)
    assert reported(orchestrator) == [{"cpu_load_percent": 12.5, "ram_used_gb": 3}]
    assert orchestrator.workers["w1"].usage == reported(orchestrator)[0]


@pytest.mark.parametrize("answer", [float("nan"), "lots", None])
async def test_a_checker_that_returns_nonsense_costs_no_heartbeat(orchestrator, worker, caplog, answer):
    looks = []

    def check():
        looks.append(1)
        return {"cpu_load_percent": answer, "ram_used_gb": 3.0}

    worker.set_usage_checker(check)
    async with running(worker, orchestrator, heartbeat_interval=0.05):
        await orchestrator.wait_for(lambda: len(looks) == 2)  # the first has been reported then
        seen = len(orchestrator.requests)
        await orchestrator.wait_for(lambda: len(orchestrator.requests) > seen + 5)
    assert reported(orchestrator) == []
    assert "cpu_load_percent" in actions(caplog, "usage_failed")[0]


async def test_a_checker_that_hangs_holds_nothing_up(orchestrator):
    worker, hold, asked = Worker(), threading.Event(), threading.Event()

    def checker():
        asked.set()
        hold.wait(20)
        return {"cpu_load_percent": 1.0, "ram_used_gb": 1.0}

    worker.set_usage_checker(checker)
    async with running(worker, orchestrator, heartbeat_interval=0.05):
        assert await asyncio.to_thread(asked.wait, 10)
        seen = len(orchestrator.requests)
        await orchestrator.wait_for(lambda: len(orchestrator.requests) > seen + 10)
    hold.set()
