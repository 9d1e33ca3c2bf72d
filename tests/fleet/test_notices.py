"""Notices that the machine is taken away: every process leaves, none is restarted, and the fleet ends."""

import asyncio
import json
import os
import signal
import sys

import pytest

from avtomatika_worker.devserver import JobState
from fleet.support import APP, fleet
from preemption.metadata import Aws, Gcp, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and sockets of POSIX")

CALLS = """
@worker.skill
async def leave():
    worker.preempt(20)
    worker.preempt(25)
"""


def actions(workers, action):
    records = [json.loads(line) for line in workers.lines if line.startswith("{")]
    return [each for each in records if each.get("action") == action]


def all_left(workers, count=2):
    """Whether the log says of each process that it has left, and of none that it was restarted."""
    left = {each["worker_id"]: each["exit_code"] for each in actions(workers, "process_left")}
    assert left == {f"w-{number}": 0 for number in range(1, count + 1)}, workers.output
    assert not actions(workers, "process_ended")


async def test_a_notice_in_a_file_ends_every_process_and_the_fleet_with_0(orchestrator, tmp_path):
    notice = tmp_path / "drain"
    async with fleet(tmp_path, orchestrator, "--workers", "2", WORKER_PREEMPTION=f"file:{notice}") as workers:
        await workers.up(2)
        job = orchestrator.submit("nap", {"seconds": 1.0})
        await orchestrator.wait_for(lambda: job.progress.message)
        notice.write_text("20")
        assert await workers.end() == 0
    all_left(workers)
    assert job.state is JobState.FINISHED
    assert job.attempts == 1


@pytest.mark.parametrize(
    ("name", "make", "variable"),
    [("aws", Aws, "AWS_EC2_METADATA_SERVICE_ENDPOINT"), ("gcp", Gcp, "GCE_METADATA_HOST")],
)
async def test_a_cloud_s_notice_ends_every_process_and_the_fleet_with_0(orchestrator, tmp_path, name, make, variable):
    cloud = make()
    async with serving(cloud) as base:
        environment = {"WORKER_PREEMPTION": name, variable: base if name == "aws" else base.removeprefix("http://")}
        async with fleet(tmp_path, orchestrator, "--workers", "2", **environment) as workers:
            await workers.up(2)
            cloud.announce(30)
            assert await workers.end() == 0
    all_left(workers)


async def test_a_machine_that_is_taken_away_from_the_start_is_left_without_an_endless_restart(orchestrator, tmp_path):
    (tmp_path / "drain").touch()
    preemption = f"file:{tmp_path / 'drain'}"
    async with fleet(tmp_path, orchestrator, "--workers", "2", WORKER_PREEMPTION=preemption) as workers:
        assert await workers.end() == 0
    all_left(workers)


async def test_one_process_that_was_given_notice_leaves_and_the_others_go_on(orchestrator, tmp_path):
    async with fleet(tmp_path, orchestrator, "--workers", "2", app=APP + CALLS) as workers:
        await workers.up(2)
        assert (await orchestrator.submit("leave").done()).state is JobState.FINISHED
        left = await workers.record("process_left")
        states = {each["worker_id"]: each["state"] for each in (await workers.health())["processes"]}
        assert states.pop(left["worker_id"]) == "left"
        assert set(states.values()) == {"running"}
        assert (await workers.get("/ready"))[0] == 200
        workers.send(signal.SIGHUP)
        await workers.record("roll_finished")
        assert (await orchestrator.submit("nap").done()).state is JobState.FINISHED
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0
    assert len(actions(workers, "process_left")) == 1


async def test_sigterm_of_one_process_is_not_a_notice_to_the_fleet(orchestrator, tmp_path):
    async with fleet(tmp_path, orchestrator, "--workers", "2", WORKER_PREEMPTION="sigterm") as workers:
        os.kill((await workers.up(2))["w-1"], signal.SIGTERM)
        assert (await workers.record("process_ended"))["worker_id"] == "w-1"
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0
    assert not actions(workers, "process_left")


async def test_orchestrators_hear_of_sigterm_while_a_skill_blocks_the_main_loop(orchestrator, tmp_path):
    options = {"WORKER_SHUTDOWN_TIMEOUT": "1", "MAX_CONCURRENT_TASKS": "1"}
    async with fleet(tmp_path, orchestrator, "--workers", "2", **options) as workers:
        await workers.up(2)
        jobs = [orchestrator.submit("block", {"seconds": 300}) for _ in range(2)]
        await orchestrator.wait_for(lambda: all(job.state is JobState.RUNNING for job in jobs))
        workers.send(signal.SIGTERM)
        began = asyncio.get_running_loop().time()
        await orchestrator.wait_for(lambda: {each.status for each in orchestrator.workers.values()} == {"draining"})
        assert asyncio.get_running_loop().time() - began < 2.0  # a second, on a machine with time for it
        workers.send(signal.SIGTERM)
        workers.send(signal.SIGTERM)
        assert await workers.end() == 3
