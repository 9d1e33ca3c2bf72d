"""Whom a task went through comes back with everything that is sent about it, this worker the last."""

import json

import pytest

from avtomatika_worker import PermanentError, TaskContext
from avtomatika_worker.devserver.faults import Fault
from avtomatika_worker.protocol.codec import Codec
from avtomatika_worker.protocol.dialects import NEWEST
from avtomatika_worker.protocol.messages import TaskResult
from services.conftest import running


def chains(orchestrator, call):
    sent = [json.loads(each.body) for each in orchestrator.requests if each.call == call and each.status == 200]
    return [each["security"].get("identity_chain") for each in sent]


@pytest.fixture
def report_chain(worker):
    @worker.skill(events_schema={"found": {"type": "object"}})
    async def report_chain(ctx: TaskContext, fail: bool = False) -> dict[str, object]:
        await ctx.send_event("found", {"n": 1})
        await ctx.send_progress(0.5, "half")
        if fail:
            raise PermanentError("no")
        return {"seen": ctx.security.get("identity_chain")}


@pytest.mark.parametrize("fail", [False, True])
async def test_the_chain_of_a_task_is_kept_and_extended(worker, report_chain, orchestrator, fail):
    async with running(worker, orchestrator):
        job = orchestrator.submit("report_chain", {"fail": fail}, security={"identity_chain": ["root", "hub-ü"]})
        await orchestrator.wait_for(lambda: job.state.final)
    assert chains(orchestrator, "result") == [["root", "hub-ü", "w1"]]
    assert chains(orchestrator, "event") == [["root", "hub-ü", "w1"]] * 2
    assert not orchestrator.problems
    if not fail:
        assert job.result == {"seen": ["root", "hub-ü"]}


async def test_a_chain_that_is_empty_begins_with_this_worker(worker, report_chain, orchestrator):
    async with running(worker, orchestrator):
        job = orchestrator.submit("report_chain", security={"identity_chain": []})
        await orchestrator.wait_for(lambda: job.state.final)
    assert chains(orchestrator, "result") == [["w1"]]


@pytest.mark.parametrize("security", [None, {}, {"identity_chain": None}, {"identity_chain": "root"}], ids=str)
async def test_without_a_chain_none_is_sent(worker, report_chain, orchestrator, security):
    async with running(worker, orchestrator):
        job = orchestrator.submit("report_chain", security=security)
        await orchestrator.wait_for(lambda: job.state.final)
    assert chains(orchestrator, "result") == [None]
    assert chains(orchestrator, "event") == [None, None]


async def test_a_result_that_waited_on_disk_keeps_its_chain(worker, report_chain, orchestrator, tmp_path):
    orchestrator.inject(Fault("result", "status", status=503, times=3))
    async with running(worker, orchestrator, state_dir=tmp_path, result_durability="always"):
        job = orchestrator.submit("report_chain", security={"identity_chain": ["root"]})
        await orchestrator.wait_for(lambda: job.state.final)
    assert chains(orchestrator, "result") == [["root", "w1"]]


def test_a_worker_without_a_token_sends_the_chain_unsigned():
    result = TaskResult(
        job_id="j", task_id="t", worker_id="w1", origin_worker_id="w1", status="success", identity_chain=("a", "w1")
    )
    body = json.loads(Codec("w1", None, lambda: "n").result(result, NEWEST, 1.0).body)
    assert body["security"] == {"identity_chain": ["a", "w1"]}
