"""Params are made and results are written alike, wherever a skill runs."""

import importlib

import jsonschema_rs
import pytest

from avtomatika_worker import Worker
from avtomatika_worker.testing import WorkerHarness

PLACES = ["loop", "thread", "process"]
RESIZED = {
    "url": "a",
    "width": 100,
    "border": {"width": 1, "color": "red"},
    "factor": "1.5",
    "area": 300,
    "unit": "px",
}
STRICT = {"at": "2024-05-01T10:00:00Z", "tags": ["a"]}
PAGE = {"url": "http://x.example/", "ip": "10.0.0.1"}


@pytest.fixture
def worker(app):
    made = Worker(worker_type="test", skills_dir=None)
    importlib.import_module("values_app").register(made)  # found where `app` is
    return made


@pytest.fixture
async def h(worker, tmp_path):
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 2, "task_files_dir": str(tmp_path)}) as harness:
        yield harness


@pytest.mark.parametrize("place", PLACES)
async def test_values_are_the_same_wherever_a_skill_runs(h, worker, place):
    """One process serves all of them: it takes seconds to start."""

    async def run(skill, params):
        result = await h.run(f"{skill}-{place}", params)
        schema = worker.skills.get(f"{skill}-{place}").contract.output_schema
        if result.ok and schema:
            jsonschema_rs.validator_for(schema).validate(result.data)
        return result

    assert (await run("resize", {"url": "a"})).data == RESIZED
    assert (await run("resize", {"url": "a", "factor": 2.25, "note": None, "area": 1})).data == {
        **RESIZED,
        "factor": "2.25",
    }
    seen = (await run("looked_at", {"url": "a"})).data
    assert seen["asdict"] == RESIZED
    assert seen["vars"] == {name: value for name, value in RESIZED.items() if name != "unit"}  # the class has it
    assert (await run("strict", STRICT)).data == {**STRICT, "goes": "x"}
    assert (await run("page", PAGE)).data == {**PAGE, "euros": "1.50"}
    assert (await run("inside", PAGE)).data == {
        "url": "http://x.example/",
        "strict": {"at": "2020-01-01T00:00:00Z", "tags": ["a"], "goes": "x"},
    }
    refused = await run("touchy", {"items": [1]})
    assert refused.error.code == "INVALID_INPUT_ERROR"
    assert "KeyError: 'one'" in refused.error.message
    broken = await run("touchy", {"items": [2]})
    assert broken.error.code == "CONTRACT_VIOLATION_ERROR"
    assert broken.error.details["path"] == "$.items"
    assert (await run("search", {"term": "x", "api_key": "mine"})).data == {"term": "x", "used": "S3CRET"}
