"""Processes that are given devices (``gpus``): each sees its own from the first import on, and none is given twice."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from avtomatika_worker import SkillBlueprint, Worker
from avtomatika_worker.errors import ProcessStartError, SkillDefinitionError
from avtomatika_worker.testing import WorkerHarness
from observability.nvml import put_nvml

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes need a Unix system")

VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture
def app(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield importlib.import_module("gpus_app")
    sys.modules.pop("gpus_app")


def taking(app, *names):
    """Return a worker with some of the skills."""
    chosen = SkillBlueprint("some")
    for each in app.skills.definitions:
        if each.name in names:
            chosen.add_skill(each)
    for resource in app.skills.resources if "whole" in names else ():
        chosen.add_resource(resource)
    worker = Worker(worker_type="test")
    worker.include_blueprint(chosen)
    return worker


@pytest.fixture
def running(app, monkeypatch, tmp_path):
    """Return a function that runs a worker with some of the skills, and with these devices."""

    @asynccontextmanager
    async def run(devices, *names, slots=8):
        monkeypatch.setenv(VISIBLE, devices)
        settings = {"max_concurrent_tasks": slots, "task_files_dir": str(tmp_path / "files"), "skill_processes": 1}
        async with WorkerHarness(taking(app, *names), settings=settings) as h:
            yield h

    return run


def place(tmp_path, name):
    (tmp_path / name).mkdir()
    return str(tmp_path / name)


async def meet(h, tmp_path, skill, count):
    params = {"meeting": place(tmp_path, skill), "count": count}
    results = await asyncio.gather(*(h.run(skill, params) for _ in range(count)))
    assert all(each.ok for each in results), results
    return [each.data for each in results]


async def test_two_processes_share_each_device_and_one_more_waits(running, tmp_path):
    async with running("GPU-a,GPU-b", "half") as h:
        seen = await meet(h, tmp_path, "half", 4)
        assert Counter(each["seen"] for each in seen) == {"GPU-a": 2, "GPU-b": 2}
        assert len({each["pid"] for each in seen}) == 4
        alone = {"meeting": place(tmp_path, "again"), "count": 1}
        more = await asyncio.gather(*(h.run("half", alone) for _ in range(9)))
        assert {each.data["pid"] for each in more} <= {each["pid"] for each in seen}, "a fifth process was started"


async def test_whole_devices_and_those_without_any_run_side_by_side(running, tmp_path):
    async with running("GPU-a,GPU-b", "whole", "none") as h:
        pairs = await asyncio.gather(meet(h, tmp_path, "whole", 2), meet(h, tmp_path, "none", 1))
        assert sorted(each["seen"] for each in pairs[0]) == ["GPU-a", "GPU-b"]
        assert [each["loaded_on"] for each in pairs[0]] == [each["seen"] for each in pairs[0]]
        assert pairs[1][0]["seen"] == "GPU-a,GPU-b", "without gpus it sees what the worker sees"


async def test_a_process_may_have_several_devices(running, tmp_path):
    async with running("0,1,2", "both") as h:
        assert [each["seen"] for each in await meet(h, tmp_path, "both", 1)] == ["0,1"]


async def test_processes_with_different_shares_take_turns_and_none_is_left_waiting(running, tmp_path):
    skills = ("use_half", "use_whole", "use_both")
    async with running("GPU-a,GPU-b", *skills) as h:
        directory = {"directory": place(tmp_path, "users")}
        order = [skills[number % 3] for number in range(9)]
        results = await asyncio.gather(*(h.run(each, directory) for each in order))
        assert all(each.ok for each in results), results
        assert max(use for each in results for use in each.data.values()) <= 1
        assert [len(each.data) for each in results] == [2 if each == "use_both" else 1 for each in order]


async def test_a_process_that_is_replaced_leaves_its_device_to_the_next(running):
    async with running("GPU-a", "once", "crash") as h:
        first, second = await h.run("once"), await h.run("once")
        assert (await h.run("crash")).error.code == "TRANSIENT_ERROR"
        third = await h.run("once")
        assert [each.data["seen"] for each in (first, second, third)] == ["GPU-a"] * 3
        assert len({each.data["pid"] for each in (first, second, third)}) == 3


async def test_a_batch_runs_on_a_device(running):
    async with running("GPU-a", "in_batches") as h:
        results = await asyncio.gather(*(h.run("in_batches", {"number": each}) for each in range(6)))
        assert [each.data for each in results] == [{"number": each, "seen": "GPU-a"} for each in range(6)]


async def test_batches_and_others_take_turns_on_a_device(running, tmp_path):
    async with running("GPU-a", "in_batches", "use_half") as h:
        directory = {"directory": place(tmp_path, "users")}
        batched = [h.run("in_batches", {"number": each}) for each in range(6)]
        results = await asyncio.gather(*batched, *(h.run("use_half", directory) for _ in range(4)))
        assert [each.data["number"] for each in results[:6]] == [*range(6)]
        assert all(each.data["GPU-a"] <= 1 for each in results[6:])


@pytest.mark.parametrize(
    ("devices", "skill", "problem"),
    [
        ("-1", "half", "gpus=0.5, and there is no GPU here. CUDA_VISIBLE_DEVICES is set, and hides all devices"),
        ("3", "both", "gpus=2, but there is 1 GPU: gpu3"),
        ("MIG-a,MIG-b", "both", "gpus=2, but there are 2 GPUs: gpu0, gpu1; a process can use one instance (MIG) only"),
    ],
)
async def test_a_request_for_missing_devices_keeps_the_worker_from_starting(running, devices, skill, problem):
    with pytest.raises(SkillDefinitionError) as caught:
        async with running(devices, skill):
            pass
    assert caught.value.skill == skill
    assert problem in str(caught.value)


async def test_a_program_that_sets_the_variable_itself_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv(VISIBLE, "0,1")
    worker = Worker(worker_type="test")
    worker.include_blueprint(importlib.import_module("gpus_set_app").skills)
    with pytest.raises(ProcessStartError, match="sets CUDA_VISIBLE_DEVICES to '0,1', and this process was given '0'"):
        await worker.main(worker.load_settings({"ORCHESTRATOR_URL": "http://127.0.0.1:1", "WORKER_TOKEN": "t"}))


def test_the_command_ends_with_code_2_if_there_are_too_few_of_those_that_nvml_knows(tmp_path):
    (tmp_path / "gpus_program.py").write_text(
        "from avtomatika_worker import Worker\nworker = Worker()\n"
        '@worker.skill(executor="process", gpus=2)\ndef both() -> None: ...\n',
        "utf-8",
    )
    nvml = put_nvml(tmp_path / "nvml", [{"uuid": "GPU-a"}])
    environ = {name: value for name, value in os.environ.items() if name != VISIBLE}
    environ |= {"ORCHESTRATOR_URL": "http://127.0.0.1:1", "WORKER_TOKEN": "t", **nvml}
    command = [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "gpus_program:worker"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "skill 'both': gpus=2, but there is 1 GPU: gpu0" in done.stderr
