"""A process that a skill has left the device is unusable is replaced; other errors of such libraries change nothing."""

import importlib
import sys
from pathlib import Path

import pytest

from avtomatika_worker import Worker
from avtomatika_worker.execution.processes.broken_device import breaks_device
from avtomatika_worker.testing import WorkerHarness

BREAKING = ["torch", "torch, without a code", "torch, once", "torch, for AMD", "cupy", "numba", "pycuda"]
HARMLESS = ["torch, invalid value", "cupy, out of memory", "somebody's", "a text"]


@pytest.fixture
def app(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield importlib.import_module("device_app")
    sys.modules.pop("device_app")


@pytest.fixture
async def h(app, tmp_path):
    worker = Worker(worker_type="test")
    worker.include_blueprint(app.skills)
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 1, "task_files_dir": str(tmp_path)}) as started:
        yield started


@pytest.mark.parametrize("name", [*BREAKING, *HARMLESS])
def test_errors_are_known_by_type_and_code(app, name):
    assert breaks_device(app.ERRORS[name]()) is (name in BREAKING)


@pytest.mark.parametrize(
    ("skill", "which", "code", "is_replaced"),
    [
        ("compute", "torch, once", "TRANSIENT_ERROR", True),
        ("compute", "cupy, out of memory", "TRANSIENT_ERROR", False),
        ("compute_in_group", "cupy", "TRANSIENT_ERROR", True),
        ("compute_wrapped", "torch", "PERMANENT_ERROR", True),
    ],
)
async def test_a_process_whose_device_is_broken_is_replaced_whatever_its_skill_makes_of_the_error(
    h, caplog, skill, which, code, is_replaced
):
    before = (await h.run("pid")).data["pid"]
    failed = await h.run(skill, {"which": which})
    assert failed.error.code == code
    assert ((await h.run("pid")).data["pid"] != before) is is_replaced
    assert ("the device is unusable" in caplog.text) is is_replaced
