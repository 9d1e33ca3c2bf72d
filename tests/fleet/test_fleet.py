"""Several worker processes under one: they share the work, and nothing that happens to one of them loses any."""

import asyncio
import json
import os
import signal
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from avtomatika_worker.devserver import JobState
from fleet.support import APP, HOLDS_UP_EVERY_THREAD, HOLDS_UP_ONE, fleet, runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and sockets of POSIX")


async def begun(orchestrator, job):
    """Wait until a task runs; return the process that runs it."""
    await orchestrator.wait_for(lambda: job.progress.message)
    return int(job.progress.message)


async def test_members_share_the_tasks_under_ids_of_their_own_and_one_port_answers_for_all(orchestrator, tmp_path):
    options = {"WORKER_PROCESSES": "2", "MAX_CONCURRENT_TASKS": "1", "WORKER_ENABLE_METRICS": "true"}
    too_long = tmp_path / ("long" * 25)  # for the path of a Unix socket in it
    too_long.mkdir()
    async with fleet(tmp_path, orchestrator, **options, TMPDIR=str(too_long)) as workers:
        members = await workers.up(2)
        assert list(members) == ["w-1", "w-2"]
        assert set(orchestrator.workers) == {"w-1", "w-2"}
        jobs = [orchestrator.submit("nap", {"seconds": 0.3}) for _ in range(2)]
        for job in jobs:
            assert (await job.done()).state is JobState.FINISHED
        assert {job.result["pid"] for job in jobs} == set(members.values())

        assert await workers.get("/live") == (200, '{"status":"ok"}')
        assert await workers.get("/ready") == (200, '{"status":"ok"}')
        assert (await workers.get("/nothing"))[0] == 404
        health = await workers.health()
        assert (health["workers"], health["restarts"], health["ready"]) == (2, 0, True)
        assert [each["health"]["slots"]["total"] for each in health["processes"]] == [1, 1]

        status, text = await workers.get("/metrics")
        assert status == 200
        named = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(named) == len(set(named))
        samples = {
            sample.labels["worker_id"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "worker_tasks_total"
        }
        assert samples == {"w-1": 1.0, "w-2": 1.0}

        last = orchestrator.submit("nap", {"seconds": 0.5})
        await begun(orchestrator, last)
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0
        assert (await last.done()).attempts == 1
    records = [json.loads(line) for line in workers.lines]
    assert {each["worker_id"] for each in records if each["logger"] == "avtomatika_worker.link"} == {"w-1", "w-2"}
    assert {each["worker_id"] for each in records if each.get("action") == "task_finished"} == {"w-1", "w-2"}


async def test_a_killed_member_is_started_again_and_its_task_is_not_lost(orchestrator, tmp_path):
    async with fleet(tmp_path, orchestrator, "--workers", "2") as workers:
        await workers.up(2)
        job = orchestrator.submit("nap", {"seconds": 0.5})
        victim = await begun(orchestrator, job)
        os.kill(victim, signal.SIGKILL)
        ended = await workers.record("process_ended")
        assert "by SIGKILL" in ended["message"]
        assert (await job.done(timeout=20)).state is JobState.FINISHED
        assert job.result["pid"] != victim
        members = await workers.up(2)
        assert victim not in members.values()
        found = {each["worker_id"]: each for each in (await workers.health())["processes"]}[ended["worker_id"]]
        assert (found["restarts"], found["last_exit"]) == (1, -signal.SIGKILL)
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0


async def test_what_a_killed_member_had_started_is_ended(orchestrator, tmp_path):
    async with fleet(tmp_path, orchestrator, "--workers", "2") as workers:
        await workers.up(2)
        pids = (await orchestrator.submit("spawn").done()).result
        assert runs(pids["child"])
        os.kill(pids["pid"], signal.SIGKILL)
        async with asyncio.timeout(10):
            while runs(pids["child"]):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel helps")
@pytest.mark.parametrize("importing", [HOLDS_UP_EVERY_THREAD, HOLDS_UP_ONE])
async def test_a_member_that_is_still_importing_its_app_does_not_outlive_a_killed_fleet(tmp_path, importing):
    async with fleet(tmp_path, None, "--workers", "2", app=f"print('importing', flush=True)\n{importing}") as workers:
        await workers.line_with("importing")
        await workers.started(1)
        workers.send(signal.SIGKILL)
        assert await workers.end() == -signal.SIGKILL


async def test_no_member_outlives_a_killed_fleet_and_their_tasks_finish(orchestrator, tmp_path):
    async with fleet(tmp_path, orchestrator, "--workers", "2", TMPDIR=str(tmp_path)) as workers:
        await workers.up(2)
        job = orchestrator.submit("nap", {"seconds": 0.5})
        await begun(orchestrator, job)
        workers.send(signal.SIGKILL)
        assert await workers.end() == -signal.SIGKILL
        assert (await job.done()).attempts == 1
        assert job.state is JobState.FINISHED
        assert list(tmp_path.glob("worker-*")) == []  # where its sockets were


async def test_a_rolling_restart_replaces_every_process_and_fails_no_job(orchestrator, tmp_path):
    async with fleet(tmp_path, orchestrator, "--workers", "2") as workers:
        before = await workers.up(2)
        jobs, rolling = [], True

        async def submit():
            while rolling:
                jobs.append(orchestrator.submit("nap", {"seconds": 0.1}))
                await asyncio.sleep(0.02)

        submitting = asyncio.create_task(submit())
        (tmp_path / "my_app.py").write_text(APP.replace('{"pid": os.getpid()}', '{"new": True}'), "utf-8")
        workers.send(signal.SIGHUP)
        await workers.record("roll_started")
        first, second = [await workers.record("process_started") for _ in range(2)]
        await workers.record("roll_finished")
        rolling = False
        await submitting
        after = await workers.up(2)
        assert set(after) == set(before)
        assert not set(after.values()) & set(before.values())
        assert (first["worker_id"], second["worker_id"]) == ("w-1", "w-2")
        for job in jobs:
            assert (await job.done()).state is JobState.FINISHED
            assert job.attempts == 1
        assert jobs[-1].result == {"new": True}
        assert (await workers.health())["restarts"] == 0
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0


async def test_a_rolling_restart_stops_at_a_mistake_and_goes_on_once_it_is_fixed(orchestrator, tmp_path):
    async with fleet(tmp_path, orchestrator, "--workers", "2") as workers:
        before = await workers.up(2)
        (tmp_path / "my_app.py").write_text("nonsense(\n", "utf-8")
        workers.send(signal.SIGHUP)
        await workers.line_with("importing my_app failed: SyntaxError")
        assert (await workers.record("process_misconfigured"))["worker_id"] == "w-1"
        await workers.record("roll_stopped")
        assert await workers.up(1) == {"w-2": before["w-2"]}
        job = orchestrator.submit("nap")
        assert (await job.done()).result == {"pid": before["w-2"]}
        (tmp_path / "my_app.py").write_text(APP, "utf-8")
        workers.send(signal.SIGHUP)
        await workers.record("roll_finished")
        assert not set((await workers.up(2)).values()) & set(before.values())
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0
