"""Tasks that must not run: what the worker does with them, in front of a real orchestrator."""

import asyncio
import json

import aiohttp
import pytest

from avtomatika_worker.config import load_settings
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.devserver.faults import Fault
from services.conftest import actions, in_thread, running

KEY = "orchestrators-key"


@pytest.fixture
def ran(worker):
    seen = []

    @worker.skill
    async def echo(text: str) -> dict[str, str]:
        seen.append(text)
        return {"text": text}

    return seen


async def ended(orchestrator, job):
    return await orchestrator.wait_for(lambda: job if job.state.final else None)


async def test_signed_tasks_run_and_unsigned_ones_do_not(worker, ran):
    async with EmbeddedOrchestrator(poll_time=0.5, secret_key=KEY) as orchestrator:
        async with running(worker, orchestrator, orchestrator_secret_key=KEY):
            job = await ended(orchestrator, orchestrator.submit("echo", {"text": "signed"}))
        assert job.state.value == "finished"
        assert ran == ["signed"]


@pytest.mark.parametrize(
    ("theirs", "said"), [(None, "it is not signed"), ("another key", "its signature is not the orchestrator's")]
)
async def test_a_task_without_the_right_signature_is_answered_with_a_security_error_and_never_runs(
    worker, ran, caplog, theirs, said
):
    async with EmbeddedOrchestrator(poll_time=0.5, secret_key=theirs) as orchestrator:
        async with running(worker, orchestrator, orchestrator_secret_key=KEY):
            job = await ended(orchestrator, orchestrator.submit("echo", {"text": "forged"}))
            job2 = await ended(orchestrator, orchestrator.submit("echo", {"text": "forged"}))
        assert (job.state.value, job.error["code"]) == ("quarantined", "SECURITY_ERROR")
        assert said in job.error["message"]
        assert job2.error["code"] == "SECURITY_ERROR"
        assert not ran
        (refusal,) = [each for each in caplog.records if getattr(each, "action", "") == "task_refused"][:1]
        assert said in refusal.getMessage()
        assert job.task_id in refusal.getMessage()
        assert KEY not in caplog.text


async def test_unsigned_tasks_run_when_signatures_are_not_required(worker, ran):
    async with EmbeddedOrchestrator(poll_time=0.5) as orchestrator:
        settings = {"orchestrator_secret_key": KEY, "require_task_signature": False}
        async with running(worker, orchestrator, **settings):
            await ended(orchestrator, orchestrator.submit("echo", {"text": "unsigned"}))
        assert ran == ["unsigned"]


async def test_a_policy_that_does_not_allow_the_skill_keeps_the_task_from_running(worker, ran, orchestrator, caplog):
    async with running(worker, orchestrator):
        refused = orchestrator.submit("echo", {"text": "no"}, policy={"allowed_skills": ["other"]})
        allowed = orchestrator.submit("echo", {"text": "yes"}, policy={"allowed_skills": ["other", "echo"]})
        await ended(orchestrator, refused)
        await ended(orchestrator, allowed)
    assert refused.error["code"] == "SECURITY_ERROR"
    assert "policy does not allow the skill 'echo'" in refused.error["message"]
    assert ran == ["yes"]
    assert actions(caplog, "task_refused")


async def test_each_orchestrator_has_a_key_of_its_own(worker, ran):
    async with (
        EmbeddedOrchestrator(poll_time=0.2, secret_key="key of a") as a,
        EmbeddedOrchestrator(poll_time=0.2, secret_key=KEY) as b,
        EmbeddedOrchestrator(poll_time=0.2, secret_key="key of a") as c,
    ):
        orchestrators = [
            {"url": a.url, "secret_key": "key of a"},
            {"url": b.url},
            {"url": c.url, "secret_key": "not its key"},
        ]
        settings = {"orchestrators_config": json.dumps(orchestrators), "orchestrator_secret_key": KEY}
        async with running(worker, a, multi_orchestrator_mode="ROUND_ROBIN", **settings):
            states = [(await ended(each, each.submit("echo", {"text": "x"}))).state.value for each in (a, b, c)]
    assert states == ["finished", "finished", "quarantined"]
    assert ran == ["x", "x"]


async def test_a_forged_task_with_the_id_of_a_running_one_does_not_end_that_one(worker):
    go_on, started = asyncio.Event(), asyncio.Event()

    @worker.skill
    async def slow() -> dict[str, str]:
        started.set()
        await go_on.wait()
        return {"by": "the skill"}

    async with EmbeddedOrchestrator(poll_time=0.2, secret_key=KEY) as orchestrator:
        async with running(worker, orchestrator, orchestrator_secret_key=KEY):
            job = orchestrator.submit("slow")
            await started.wait()
            forged = {"job_id": job.job_id, "task_id": job.task_id, "type": "slow", "sig": "0" * 64}
            fault = Fault("poll", "body", body=json.dumps(forged).encode())
            orchestrator.inject(fault)
            await orchestrator.wait_for(lambda: fault.used and orchestrator.requests[-1].call == "poll")
            go_on.set()
            await ended(orchestrator, job)
        assert (job.state.value, job.result) == ("finished", {"by": "the skill"})


async def test_a_replayed_task_is_run_once(worker, ran):
    async with EmbeddedOrchestrator(poll_time=0.2, secret_key=KEY) as orchestrator:
        async with running(worker, orchestrator, orchestrator_secret_key=KEY):
            job = await ended(orchestrator, orchestrator.submit("echo", {"text": "once"}))
            task = next(each.reply for each in orchestrator.requests if each.call == "poll" and each.reply)
            fault = Fault("poll", "body", body=task)
            orchestrator.inject(fault)

            def answered_again():
                results = [each for each in orchestrator.requests if each.call == "result"]
                return fault.used and len(results) > 1

            await orchestrator.wait_for(answered_again)
        assert job.state.value == "finished"
        assert ran == ["once"]


async def test_the_refused_are_counted_by_reason(worker, ran, unused_tcp_port):
    async with EmbeddedOrchestrator(poll_time=0.2) as orchestrator:
        settings = {"orchestrator_secret_key": KEY, "port": unused_tcp_port, "enable_metrics": True}
        async with in_thread(worker, orchestrator, health_check=True, **settings):
            await ended(orchestrator, orchestrator.submit("echo", {"text": "unsigned"}))
            url = f"http://127.0.0.1:{unused_tcp_port}/metrics"
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                text = await answer.text()
    (line,) = [each for each in text.splitlines() if each.startswith("worker_tasks_refused_total{")]
    assert 'reason="unsigned"' in line
    assert line.endswith(" 1.0")


def test_the_key_is_in_no_representation_of_the_settings():
    settings = load_settings({"REQUIRE_TASK_SIGNATURE": "true", "ORCHESTRATOR_SECRET_KEY": KEY})
    assert KEY not in repr(settings)
    assert KEY not in repr(settings.orchestrators)
