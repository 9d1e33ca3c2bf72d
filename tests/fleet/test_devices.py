"""``--workers gpu``: one process on each device, which sees and announces that device only."""

import signal
import sys

import pytest

from fleet.support import fleet
from observability.nvml import put_nvml

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and sockets of POSIX")

APP = """
import os
SEEN = os.environ.get("CUDA_VISIBLE_DEVICES")  # as a library reads it that is imported here
from avtomatika_worker import Worker
worker = Worker(worker_type="test")

@worker.skill
async def see():
    return {"seen": SEEN}
"""

TWO = [{"uuid": "GPU-aaaa", "load": 10}, {"uuid": "GPU-bbbb", "load": 90}]


def announced(orchestrator, worker_id):
    """Return the devices that a worker has registered with, and those whose load it has reported."""
    registered = orchestrator.workers[worker_id].registration["resources"]["devices"]
    beats = [each.json for each in orchestrator.requests if each.call == "heartbeat"]
    usages = [each["usage"] for each in beats if each["worker_id"] == worker_id and "usage" in each]
    units = {unit["unit_id"] for usage in usages for unit in usage.get("devices_usage") or ()}
    return [each["id"] for each in registered], units


async def test_each_process_sees_and_announces_exactly_one_of_two_devices(orchestrator, tmp_path):
    nvml = put_nvml(tmp_path / "nvml", TWO)
    async with fleet(tmp_path, orchestrator, "--workers", "gpu", app=APP, HEARTBEAT_INTERVAL="0.2", **nvml) as workers:
        assert list(await workers.up(2)) == ["w-gpu0", "w-gpu1"]
        for number, gpu in enumerate(TWO):
            job = orchestrator.submit("see", worker_id=f"w-gpu{number}")
            assert (await job.done()).result == {"seen": gpu["uuid"]}
            reported = ([f"gpu-{number}"], {f"gpu-{number}"})
            await orchestrator.wait_for(lambda n=number, r=reported: announced(orchestrator, f"w-gpu{n}") == r)
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0


async def test_several_processes_share_the_device_that_the_parent_is_restricted_to(orchestrator, tmp_path):
    nvml = put_nvml(tmp_path / "nvml", TWO)
    options = {"WORKER_PROCESSES": "gpu:2", "CUDA_VISIBLE_DEVICES": "1", **nvml}
    async with fleet(tmp_path, orchestrator, app=APP, **options) as workers:
        assert list(await workers.up(2)) == ["w-gpu1-1", "w-gpu1-2"]
        job = await orchestrator.submit("see", worker_id="w-gpu1-2").done()
        assert job.result == {"seen": "1"}
        assert [announced(orchestrator, each)[0] for each in orchestrator.workers] == [["gpu-1"], ["gpu-1"]]
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0


async def test_several_processes_do_not_give_the_same_devices_to_processes_of_their_skills(tmp_path):
    app = APP.replace("@worker.skill\nasync", '@worker.skill(executor="process", gpus=0.5)\nasync')
    for number, workers_are in (("2", "two"), ("gpu:2", "two on each device")):
        options = {"CUDA_VISIBLE_DEVICES": "0"}
        (tmp_path / workers_are).mkdir()
        async with fleet(tmp_path / workers_are, None, "--workers", number, app=app, **options) as workers:
            assert await workers.end() == 2
        assert "skill 'see' has gpus, and several processes would give away the same devices" in workers.output


async def test_a_process_on_a_device_gives_it_to_processes_of_its_skills(orchestrator, tmp_path):
    app = APP.replace("@worker.skill\nasync", '@worker.skill(executor="process", gpus=0.5)\nasync')
    options = {"CUDA_VISIBLE_DEVICES": "4,5"}
    async with fleet(tmp_path, orchestrator, "--workers", "gpu", app=app, **options) as workers:
        await workers.up(2)
        seen = [await orchestrator.submit("see", worker_id=f"w-gpu{number}").done() for number in (4, 5)]
        assert [job.result for job in seen] == [{"seen": "4"}, {"seen": "5"}]
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0


async def test_without_a_device_the_error_says_where_one_was_looked_for(tmp_path):
    options = {"CUDA_VISIBLE_DEVICES": "-1", **put_nvml(tmp_path / "nvml", TWO)}
    async with fleet(tmp_path, None, "--workers", "gpu", app=APP, **options) as workers:
        assert await workers.end() == 2
    assert "there is no GPU for a process" in workers.output
    assert "CUDA_VISIBLE_DEVICES is set, and hides all devices" in workers.output
    assert len(workers.lines) == 1
