"""A worker as its orchestrator sees it: registration, tasks, events, cancellation, faults, shutdown."""

import asyncio
import functools
import logging
import threading
import time
from dataclasses import dataclass

import pytest

from avtomatika_worker import PermanentError, TaskContext, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from avtomatika_worker.observability.log_context import current_log_context
from avtomatika_worker.protocol.dialects import DIALECTS
from services.conftest import running


@dataclass
class Size:
    width: int
    height: int = 100


def add_skills(worker):
    @worker.skill
    async def echo(params: dict):
        return params

    @worker.skill(price=0.5, category="AI", output_statuses=["needs_review"])
    async def area(params: Size):
        return {"status": "needs_review", "data": {"area": params.width * params.height}}

    @worker.skill(events={"milestone": {"type": "object", "required": ["n"]}})
    async def talk(ctx: TaskContext):
        await ctx.send_progress(0.5, "half")
        sent = await ctx.send_event("milestone", {"n": 1})
        broken = await ctx.send_event("milestone", {})
        undeclared = await ctx.send_event("other", {})
        await ctx.send_progress(1.0, "done")
        return {"sent": sent, "broken": broken, "undeclared": undeclared}

    @worker.skill
    def old_style(params, send_progress, task_id, job_id, **kwargs):
        assert send_progress(task_id, job_id, 0.25, "a quarter")
        return {"thread": threading.current_thread().name, "keys": sorted(kwargs)}

    @worker.skill
    async def fail(how: str):
        if how == "permanent":
            raise PermanentError("never again", {"why": "because"})
        if how == "exit":
            raise SystemExit(3)
        if how == "nan":
            return {"x": [1, float("nan")]}
        raise ValueError("oops")

    @worker.skill
    async def forever(params: dict):
        await asyncio.Event().wait()

    return worker


@pytest.mark.parametrize("version", [dialect.version for dialect in DIALECTS])
async def test_every_protocol_version_is_served_without_a_complaint(version):
    worker = add_skills(Worker(worker_type="test"))
    async with EmbeddedOrchestrator(version=version, poll_time=1.0) as orchestrator, running(worker, orchestrator):
        jobs = [orchestrator.submit("echo", {"i": i, "f": 1.5, "list": [1, 2]}) for i in range(30)]
        review = orchestrator.submit("area", {"width": 3})
        talk = orchestrator.submit("talk", {})
        for job in [*jobs, review, talk]:
            await job.done()
        assert [job.result["i"] for job in jobs] == list(range(30))
        assert (review.result_status, review.result) == ("needs_review", {"area": 300})
        assert talk.result == {"sent": True, "broken": False, "undeclared": False}
        assert talk.progress == (1.0, "done")
        assert [e["event_type"] for e in talk.events if e["event_type"] != "progress"] == ["milestone"]
        registered = orchestrator.workers["w1"].registration
        assert registered["capabilities"]["cost_per_skill"] == {"area": 0.5}
        assert list(orchestrator.problems) == []


@pytest.mark.parametrize(
    ("how", "state", "code"),
    [
        ("permanent", JobState.QUARANTINED, "PERMANENT_ERROR"),
        ("exit", JobState.QUARANTINED, "TRANSIENT_ERROR"),
        ("value", JobState.QUARANTINED, "TRANSIENT_ERROR"),
        ("nan", JobState.QUARANTINED, "CONTRACT_VIOLATION_ERROR"),
    ],
)
async def test_failures_carry_their_code_and_the_worker_goes_on(orchestrator, worker, how, state, code):
    async with running(add_skills(worker), orchestrator):
        job = await orchestrator.submit("fail", {"how": how}).done()
        assert (job.state, job.error["code"]) == (state, code)
        assert (await orchestrator.submit("echo", {}).done()).state is JobState.FINISHED


async def test_invalid_input_names_the_field(orchestrator, worker):
    async with running(add_skills(worker), orchestrator):
        job = await orchestrator.submit("area", {"width": "wide"}).done()
        assert job.state is JobState.FAILED
        assert job.error["code"] == "INVALID_INPUT_ERROR"
        assert "params.width" in job.error["message"]


async def test_plain_functions_run_in_the_workers_threads_and_take_the_older_forms(orchestrator, worker):
    async with running(add_skills(worker), orchestrator):
        job = await orchestrator.submit("old_style", {"a": 1}).done()
        assert job.result["thread"].startswith("skill")
        assert {"priority", "metadata", "send_event", "add_to_hot_cache"} <= set(job.result["keys"])
        assert job.progress.fraction == 0.25


async def test_an_async_skill_behind_a_plain_decorator_runs(orchestrator, worker):
    def decorated(func):
        @functools.wraps(func)
        def wrapper(*args, **kwargs):
            return func(*args, **kwargs)

        return wrapper

    @worker.skill
    @decorated
    async def double(n: int):
        await asyncio.sleep(0)
        return {"n": 2 * n, "thread": threading.current_thread() is threading.main_thread()}

    async with running(worker, orchestrator):
        job = await orchestrator.submit("double", {"n": 4}).done()
        assert job.result == {"n": 8, "thread": True}


@pytest.mark.parametrize("websockets", [True, False])
async def test_a_cancelled_task_is_stopped_and_reported(orchestrator, worker, websockets):
    async with running(add_skills(worker), orchestrator, enable_websockets=websockets, heartbeat_interval=0.2):
        job = orchestrator.submit("forever", {})
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        orchestrator.cancel(job.job_id)
        await orchestrator.wait_for(lambda: job.cancel_confirmed)
        assert (await orchestrator.submit("echo", {}).done()).state is JobState.FINISHED


async def test_a_task_past_its_deadline_is_a_timeout(orchestrator, worker):
    worker.skill("slow", timeout=0.05)(_sleep)
    async with running(worker, orchestrator):
        job = await orchestrator.submit("slow", {}).done()
        assert job.error["code"] == "TIMEOUT_ERROR"


async def _sleep():
    await asyncio.sleep(60)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "reset", "status", "garbage", "truncate", "html"])
@pytest.mark.parametrize("call", ["result", "poll", "heartbeat", "register"])
async def test_every_job_finishes_once_whatever_happens_to_a_call(worker, call, kind):
    async with EmbeddedOrchestrator(poll_time=0.2, task_timeout=3.0, retry_delay=0.0) as orchestrator:
        if call == "register":
            orchestrator.inject(Fault(call=call, kind=kind, times=2))
        async with running(add_skills(worker), orchestrator):
            orchestrator.inject(Fault(call=call, kind=kind, times=2))
            jobs = [orchestrator.submit("echo", {"i": i}) for i in range(10)]
            for job in jobs:
                # A poll's answer that is lost takes the task with it, until the orchestrator's own timeout.
                await job.done(timeout=30)
            assert {job.state for job in jobs} == {JobState.FINISHED}
            assert all(sum(r.status == "accepted" for r in job.results_received) == 1 for job in jobs)


async def test_an_orchestrator_that_forgot_the_worker_gets_it_back(orchestrator, worker):
    async with running(add_skills(worker), orchestrator):
        orchestrator.forget_workers()
        orchestrator.inject(Fault(call="poll", kind="reset"))
        await orchestrator.wait_for_worker("w1", timeout=20)
        assert (await orchestrator.submit("echo", {}).done()).state is JobState.FINISHED


async def test_shutdown_lets_a_task_finish_and_says_goodbye(orchestrator, worker):
    release = asyncio.Event()

    @worker.skill
    async def patient():
        await release.wait()
        return {"done": True}

    async with running(worker, orchestrator) as main:
        job = orchestrator.submit("patient", {})
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        stopping = asyncio.create_task(worker.shutdown())
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].status == "draining")
        release.set()
        await stopping
        await main
    assert job.result == {"done": True}
    statuses = [call.json["status"] for call in orchestrator.requests if call.call == "heartbeat"]
    assert statuses[-1] == "offline"


async def test_a_task_that_outlives_the_grace_is_a_transient_failure(orchestrator, worker):
    async with running(add_skills(worker), orchestrator, shutdown_timeout=0.05):
        job = orchestrator.submit("forever", {})
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
    assert job.results_received[0].message["error"]["code"] == "TRANSIENT_ERROR"


async def test_cancelling_main_shuts_down_in_order(orchestrator, worker):
    async with running(add_skills(worker), orchestrator) as main:
        main.cancel()
        with pytest.raises(asyncio.CancelledError):
            await main
        statuses = [call.json["status"] for call in orchestrator.requests if call.call == "heartbeat"]
        assert statuses[-1] == "offline"


@pytest.mark.parametrize("kind", ["coroutine", "thread", "to_thread"])
async def test_records_carry_the_ids_of_their_own_task(orchestrator, worker, caplog, kind):
    from avtomatika_worker import TaskContextFilter

    log = logging.getLogger("users.code")
    context = TaskContextFilter()
    caplog.handler.addFilter(context)  # pytest has one handler for the whole session: taken off below
    caplog.set_level(logging.INFO)

    async def note(i: int):
        log.info("start %s", i)
        await asyncio.sleep(0.01)
        if kind == "to_thread":
            await asyncio.to_thread(log.info, "beside %s", i)
        log.info("end %s", i)

    def note_in_thread(i: int):
        log.info("start %s", i)
        time.sleep(0.01)
        log.info("end %s", i)

    worker.skill("note")(note_in_thread if kind == "thread" else note)
    try:
        async with running(worker, orchestrator):
            jobs = [orchestrator.submit("note", {"i": i}) for i in range(10)]
            for job in jobs:
                await job.done()
    finally:
        caplog.handler.removeFilter(context)
    seen = {record.args[0]: set() for record in caplog.records if record.name == "users.code"}
    for record in caplog.records:
        if record.name == "users.code":
            seen[record.args[0]].add((record.worker_id, record.task_id, record.job_id))
    assert seen == {i: {("w1", job.task_id, job.job_id)} for i, job in enumerate(jobs)}


async def test_a_worker_leaves_nothing_behind_in_its_program(orchestrator, worker):
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    async with running(add_skills(worker), orchestrator):
        await orchestrator.submit("echo", {}).done()
    assert (root.level, list(root.handlers)) == before
    settings = worker.load_settings({"ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token})
    asyncio.get_running_loop().call_later(0.05, worker.request_shutdown)
    await worker.main(settings, health_check=False)
    assert dict(current_log_context()) == {}


async def test_an_orchestrator_that_was_replaced_between_two_calls_is_registered_at_again(orchestrator, worker):
    async with running(worker, orchestrator, heartbeat_interval=60.0):
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].connected)
        await orchestrator.stop()  # polls are answered, the WebSocket is closed: no call fails
        orchestrator.forget_workers()
        await orchestrator.start()
        await orchestrator.wait_for_worker("w1")
