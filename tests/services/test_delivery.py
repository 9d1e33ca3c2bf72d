"""No finished result is lost: counted at the orchestrator's side, whatever happens in between."""

import asyncio
import json

import pytest

from avtomatika_worker import ConfigError, ResourceError, TaskContext, Worker
from avtomatika_worker.delivery.sqlite_store import SqliteStore
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from services.assembled import make_supervisor, supervised
from services.conftest import actions, make_settings, running


def echoing(worker):
    @worker.skill
    async def echo(params: dict):
        return params

    return worker


def cut_short(worker):
    """Ask for the shutdown as two signals do."""
    worker.request_shutdown()
    worker.request_shutdown()


def refused_tasks(orchestrator):
    """Return the ids of the tasks whose results have come and were refused."""
    came = [call for call in list(orchestrator.requests) if call.call == "result" and call.status == 503]
    return {json.loads(call.body)["task_id"] for call in came}


def accepted(job):
    return [received for received in job.results_received if received.status == "accepted"]


def refusing_results(**more):
    return Fault(call="result", kind="status", status=503, times=None, **more)


@pytest.mark.parametrize("durability", ["on_failure", "always", "off"])
async def test_an_outage_loses_and_duplicates_nothing(worker, durability):
    release, ended = asyncio.Event(), []

    @worker.skill
    async def patient(params: dict):
        await release.wait()
        ended.append(params)
        return params

    async with (
        EmbeddedOrchestrator(poll_time=0.5, task_timeout=30) as orchestrator,
        running(worker, orchestrator, result_durability=durability, max_concurrent_tasks=20),
    ):
        jobs = [orchestrator.submit("patient", {"n": n}) for n in range(30)]
        await orchestrator.wait_for(lambda: sum(job.state is JobState.RUNNING for job in jobs) == 20)
        await orchestrator.stop()
        release.set()
        while len(ended) < 20:  # noqa: ASYNC110 - and their results cannot be delivered
            await asyncio.sleep(0.05)
        await orchestrator.start()
        for job in jobs:
            await job.done(timeout=30)
        assert [job.result for job in jobs] == [{"n": n} for n in range(30)]
        assert {len(accepted(job)) for job in jobs} == {1}
        assert {job.attempts for job in jobs} == {1}


async def test_undelivered_results_go_out_when_a_worker_with_the_same_id_is_back(orchestrator, caplog):
    refusal = refusing_results()
    orchestrator.inject(refusal)
    worker = echoing(Worker())
    async with running(worker, orchestrator):
        jobs = [orchestrator.submit("echo", {"n": n}) for n in range(5)]
        await orchestrator.wait_for(lambda: len(refused_tasks(orchestrator)) == 5)
        cut_short(worker)
    assert {job.state for job in jobs} == {JobState.RUNNING}
    assert actions(caplog, "outbox_left")
    orchestrator.clear_faults()
    async with running(Worker(), orchestrator):  # it does not even have the skill any more
        for job in jobs:
            await job.done()
    assert [job.result for job in jobs] == [{"n": n} for n in range(5)]
    assert {len(accepted(job)) for job in jobs} == {1}
    async with running(Worker(), orchestrator):
        pass
    assert {len(job.results_received) for job in jobs} == {1}  # nothing was left to send


async def test_one_slow_result_holds_no_other_back(orchestrator, worker):
    slow = []
    refused = Fault(call="result", kind="status", times=None, when=lambda call: call.json["job_id"] in slow)
    orchestrator.inject(refused)
    async with running(echoing(worker), orchestrator, max_concurrent_tasks=1, result_retry_max_delay=0.5):
        held = orchestrator.submit("echo", {"slow": True})
        slow.append(held.job_id)
        await orchestrator.wait_for(lambda: refused.used)
        others = [orchestrator.submit("echo", {"n": n}) for n in range(20)]
        for job in others:
            assert (await job.done()).state is JobState.FINISHED
        assert held.state is JobState.RUNNING
        slow.clear()
        assert (await held.done()).result == {"slow": True}


async def test_a_result_that_is_too_old_is_given_up_with_its_whole_story(orchestrator, worker, caplog):
    orchestrator.inject(refusing_results())
    supervisor, engine = make_supervisor(echoing(worker), orchestrator, result_max_age=0.3)
    async with supervised(supervisor, orchestrator):
        job = orchestrator.submit("echo", {})
        async with asyncio.timeout(10):
            while not engine.outbox.expired:  # noqa: ASYNC110 - a figure for metrics: it wakes nobody
                await asyncio.sleep(0.01)
        (story,) = actions(caplog, "result_expired")
        for part in (job.job_id, orchestrator.url, "attempts", "503"):
            assert part in story
    assert not actions(caplog, "outbox_left")


async def test_a_result_refused_for_good_becomes_a_failure_so_that_the_job_does_not_hang(orchestrator, worker):
    orchestrator.inject(Fault(call="result", kind="status", status=413, times=1))
    async with running(echoing(worker), orchestrator):
        job = await orchestrator.submit("echo", {"x": 1}).done()
    first = job.results_received[0].message
    assert first["status"] == "failure"
    assert "413" in first["error"]["message"]


@pytest.mark.parametrize("kind", ["drop_after", "drop_before", "status", "garbage"])
async def test_events_arrive_once_and_in_order_whatever_happens_to_a_call(orchestrator, worker, kind):
    @worker.skill(events={"step": {"type": "object"}})
    async def steps(ctx: TaskContext):
        for number in range(10):
            ctx.send_event("step", {"number": number})

    orchestrator.inject(Fault(call="event", kind=kind, times=3))
    async with running(worker, orchestrator):
        job = await orchestrator.submit("steps", {}).done()
        numbers = [event["payload"]["number"] for event in job.events if event["event_type"] == "step"]
    assert numbers == list(range(10))


async def test_events_survive_the_worker_as_results_do(orchestrator):
    worker = Worker()

    @worker.skill
    async def report(ctx: TaskContext):
        ctx.send_event("first", {})
        ctx.send_event("second", {})
        return {"reported": True}

    down = [Fault(call=call, kind="status", times=None) for call in ("event", "result")]
    orchestrator.inject(*down)
    async with running(worker, orchestrator):
        job = orchestrator.submit("report", {})
        await orchestrator.wait_for(lambda: down[0].used)
        cut_short(worker)
    orchestrator.clear_faults()
    async with running(Worker(), orchestrator):
        await job.done()
        await orchestrator.wait_for(lambda: len(job.events) == 2)
    assert [event["event_type"] for event in job.events] == ["first", "second"]


async def test_a_directory_that_cannot_be_used_stops_the_start_when_it_was_named(orchestrator, worker, tmp_path):
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(ConfigError, match="WORKER_STATE_DIR"):
        async with running(worker, orchestrator, state_dir=str(tmp_path / "file" / "state")):
            pass


async def test_without_a_place_for_results_the_worker_says_so_and_goes_on(
    orchestrator, worker, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("in the way", "utf-8")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    async with running(echoing(worker), orchestrator):
        assert (await orchestrator.submit("echo", {}).done()).state is JobState.FINISHED
    assert actions(caplog, "store_unusable")


async def test_a_second_worker_with_the_same_id_is_refused(orchestrator, worker):
    async with running(worker, orchestrator):
        with pytest.raises(ConfigError, match="WORKER_ID=w1"):
            async with running(Worker(), orchestrator):
                pass


@pytest.mark.breaks_invariants("results_settled")
async def test_a_result_that_was_neither_delivered_nor_stored_counts_as_lost(orchestrator, worker, caplog):
    refusal = refusing_results()
    orchestrator.inject(refusal)
    async with running(echoing(worker), orchestrator, result_durability="off"):
        orchestrator.submit("echo", {})
        await orchestrator.wait_for(lambda: refusal.used)
        cut_short(worker)
    assert worker.ending.lost == 1
    (lost,) = actions(caplog, "result_lost")
    assert "result of task" in lost


@pytest.mark.patient
async def test_an_outage_with_hundreds_of_results_is_a_few_lines_of_log(worker, orchestrator, caplog):
    @worker.skill
    async def quick():
        return {}

    down = Fault(call="result", kind="status", status=503, times=None)
    async with running(worker, orchestrator, max_concurrent_tasks=50):
        orchestrator.inject(down)
        jobs = [orchestrator.submit("quick", {}) for _ in range(200)]
        await orchestrator.wait_for(lambda: down.used >= 400, timeout=30)
        orchestrator.clear_faults()
        for job in jobs:
            assert (await job.done(timeout=30)).state is JobState.FINISHED
    loud = [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    assert len(loud) <= 10
    assert actions(caplog, "result_retry")


@pytest.mark.parametrize("what", ["the outbox", "what skills need"])
async def test_the_workers_own_events_survive_a_worker_that_does_not_start(orchestrator, tmp_path, caplog, what):
    worker = echoing(Worker())
    environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token}
    settings = make_settings(worker, environment, {"state_dir": str(tmp_path)})
    owner = SqliteStore(tmp_path, "w1")
    if what == "the outbox":
        owner.open()
    else:

        @worker.resource
        def broken() -> Broken:
            raise OSError("no such device")

    assert await worker.emit_event({"event_type": "noted", "payload": {"n": 1}})
    with pytest.raises((ConfigError, ResourceError)):
        await worker.main(settings, health_check=False)
    if what == "the outbox":  # another process has the file
        assert len(actions(caplog, "result_lost")) == 1
        owner.close()
        return
    async with running(echoing(Worker()), orchestrator, state_dir=str(tmp_path)):
        await orchestrator.wait_for(lambda: [call for call in orchestrator.requests if call.call == "event"])


class Broken:
    """What cannot be made."""


async def test_the_workers_own_events_survive_a_shutdown_before_they_are_sent(orchestrator, tmp_path):
    refusal = Fault(call="register", kind="status", status=503, times=None)
    orchestrator.inject(refusal)
    worker = echoing(Worker())
    environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token}
    settings = make_settings(worker, environment, {"state_dir": str(tmp_path)})
    main = asyncio.create_task(worker.main(settings, health_check=False))
    await orchestrator.wait_for(lambda: refusal.used)
    for number in range(3):  # the first is in hand when the worker is asked to stop
        assert await worker.emit_event({"event_type": "noted", "payload": {"n": number}})
    await asyncio.sleep(0)
    await worker.shutdown()
    await main
    orchestrator.clear_faults()
    async with running(echoing(Worker()), orchestrator, state_dir=str(tmp_path)):
        await orchestrator.wait_for(lambda: len([call for call in orchestrator.requests if call.call == "event"]) == 3)
    sent = [json.loads(call.body)["payload"] for call in orchestrator.requests if call.call == "event"]
    assert sent == [{"n": 0}, {"n": 1}, {"n": 2}]
