"""Every bound of a worker, and something that tries to exceed it."""

import time

import pytest

from avtomatika_worker import ConfigError, Failed, Succeeded, TaskContext, Worker
from avtomatika_worker.devserver.faults import Fault
from services.conftest import actions, make_settings, running


@pytest.fixture
def echo(worker):
    @worker.skill
    async def echo(params: dict[str, object]) -> dict[str, object]:
        return {"keys": sorted(params)}


async def ended(orchestrator, skill, params=None):
    job = orchestrator.submit(skill, params or {})
    await orchestrator.wait_for(lambda: job.state.final)
    return job


async def test_an_answer_that_is_too_long_is_abandoned_and_the_worker_goes_on(worker, echo, orchestrator, caplog):
    fault = Fault(
        "poll", "body", body=b'{"job_id":"j","task_id":"t","type":"echo","params":{"x":"' + b"x" * 50_000 + b'"}}'
    )
    async with running(worker, orchestrator, max_response_bytes=20_000):
        orchestrator.inject(fault)
        job = await ended(orchestrator, "echo", {"a": 1})
    assert job.state.value == "finished"
    assert fault.used
    assert "MAX_RESPONSE_BYTES=20000" in " ".join(actions(caplog, "poll_failed"))


async def test_a_message_of_the_websocket_that_is_too_long_ends_the_connection_and_a_new_one_is_made(
    worker, echo, orchestrator
):
    bomb = Fault("ws", "body", body=b'{"command":"' + b"x" * 5_000 + b'"}')
    orchestrator.inject(bomb)
    async with running(worker, orchestrator, max_response_bytes=2_000):
        await orchestrator.wait_for(lambda: [e.status for e in orchestrator.requests if e.call == "ws"] == [101, 101])
        assert (await ended(orchestrator, "echo")).state.value == "finished"


async def test_a_task_that_is_nested_too_deep_is_answered_and_does_not_run(worker, echo, orchestrator):
    deep: object = 1
    for _ in range(12):
        deep = {"a": deep}
    async with running(worker, orchestrator, max_task_nesting=10):
        refused = await ended(orchestrator, "echo", {"deep": deep})
        taken = await ended(orchestrator, "echo", {"flat": [[]] * 100})
    assert refused.error["code"] == "INVALID_INPUT_ERROR"
    assert "MAX_TASK_NESTING" in refused.error["message"]
    assert taken.state.value == "finished"


@pytest.mark.parametrize("count", [3, 4])
async def test_a_worker_with_too_many_skills_does_not_start(orchestrator, count):
    worker = Worker()
    for number in range(count):
        worker.skill(f"skill{number}")(lambda: None)
    settings = make_settings(worker, {"ORCHESTRATOR_URL": orchestrator.url}, {"max_skills": 3})
    if count == 3:
        async with running(worker, orchestrator, max_skills=3):
            assert len(orchestrator.workers["w1"].skills) == 3
        return
    with pytest.raises(ConfigError, match=r"has 4 skills, and may have 3 \(MAX_SKILLS\)"):
        await worker.main(settings, health_check=False)


async def test_events_that_come_too_fast_are_slowed_down_in_order_and_none_is_lost(worker, orchestrator):
    @worker.skill
    async def flood(ctx: TaskContext) -> None:
        for number in range(60):
            await ctx.send_event("tick", {"number": number})

    async with running(worker, orchestrator, max_event_rate=30.0):
        began = time.monotonic()
        job = await ended(orchestrator, "flood")
        took = time.monotonic() - began
    assert [each["payload"]["number"] for each in job.events] == list(range(60))
    assert took > 0.95  # 30 at once, 30 in a second


async def test_two_tasks_share_the_rate_of_events(worker, orchestrator):
    @worker.skill
    async def flood(ctx: TaskContext) -> None:
        for number in range(30):
            await ctx.send_event("tick", {"number": number})

    async with running(worker, orchestrator, max_event_rate=30.0):
        began = time.monotonic()
        jobs = [orchestrator.submit("flood") for _ in range(2)]
        await orchestrator.wait_for(lambda: all(job.state.final for job in jobs))
        assert time.monotonic() - began > 0.95


async def test_a_result_that_is_too_large_without_a_store_fails_for_good_and_says_what_to_do(
    worker, orchestrator, caplog
):
    @worker.skill
    async def large() -> dict[str, str]:
        return {"text": "x" * 30_000, "small": "y"}

    async with running(worker, orchestrator, max_result_bytes=20_000):
        job = await ended(orchestrator, "large")
    assert job.error["code"] == "PERMANENT_ERROR"
    assert "MAX_RESULT_BYTES" in job.error["message"]
    assert "S3_DEFAULT_BUCKET" in job.error["message"]
    assert job.error["details"] == {"bytes": pytest.approx(30_040, abs=50), "limit": 20_000}
    assert actions(caplog, "task_failed")
    assert not actions(caplog, "result_too_large")  # one failure is one record
    assert max(len(each.body) for each in orchestrator.requests if each.call == "result") < 20_000


async def test_a_result_of_just_the_right_size_passes(worker, orchestrator):
    @worker.skill
    async def fits() -> dict[str, str]:
        return {"text": "x" * 19_900}

    async with running(worker, orchestrator, max_result_bytes=20_000):
        job = await ended(orchestrator, "fits")
    assert len(job.result["text"]) == 19_900


async def test_a_failure_with_too_many_details_keeps_its_code_and_message(worker, orchestrator):
    @worker.skill
    async def fails() -> Failed:
        return Failed("PERMANENT_ERROR", "the disk is full", {"log": "x" * 30_000}, {"partial": "y" * 30_000})

    async with running(worker, orchestrator, max_result_bytes=20_000):
        job = await ended(orchestrator, "fails")
    assert job.error["code"] == "PERMANENT_ERROR"
    assert job.error["message"].startswith("the disk is full (its data and details exceeded MAX_RESULT_BYTES=20000")
    assert max(len(each.body) for each in orchestrator.requests if each.call == "result") < 20_000


async def test_middlewares_are_bounded_too(worker, orchestrator):
    @worker.skill
    async def small() -> dict[str, int]:
        return {"n": 1}

    async def swell(ctx, call_next):
        await call_next(ctx)
        return Succeeded({"text": "x" * 30_000})

    worker.add_middleware(swell)

    async with running(worker, orchestrator, max_result_bytes=20_000):
        job = await ended(orchestrator, "small")
    assert "MAX_RESULT_BYTES" in job.error["message"]
