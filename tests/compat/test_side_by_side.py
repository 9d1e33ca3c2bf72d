"""Programs in the official style, on the official SDK and on this one: an orchestrator has the same in the end.

Both run at an orchestrator of their own, at the same time. What differs stands in `DIFFERENCES`, with the row of the
migration page that says so.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.environments import official_worker_python_of
from cluster.processes import ManagedProcess
from e2e.client import Client, client_of
from e2e.fleet import WORKER_TOKEN, Fleet
from files.s3 import ACCESS_KEY, SECRET_KEY, S3Server, serving

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
OFFICIAL, ORCHESTRATOR = "1.0b20", "1.0b30"
BUCKET = "payloads"

Jobs = dict[str, tuple[str, dict[str, Any]]]

EXAMPLE: Jobs = {
    "a success, its data changed by the middleware": ("greet", {"name": "Ann"}),
    "a status of the skill's own": ("greet", {}),
    "files": ("summarize", {"text": "One. Two."}),
    "a failure with a code": ("refuse", {"why": "late"}),
    "a cancellation": ("stop", {}),
}
RETURNS: Jobs = {
    **{
        name: (name, {})
        for name in [
            "nothing",
            "empty",
            "envelope",
            "data_only",
            "no_data",
            "extra_keys",
            "message",
            "failed",
            "failed_with_more",
            "failed_as_text",
            "failed_for_nothing",
            "cancelled",
            "plain",
            "an_error_alone",
            "value_error",
            "runtime_error",
            "wrong_params",
            "in_a_thread",
            "reports",
            "traced",
            "files",
            "hot",
        ]
    },
    "own_status": ("own_status", {"why": "blurred"}),
    "a dataclass": ("sized", {"width": 3}),
    "a dataclass that refuses": ("sized", {"width": 0}),
}
MIDDLEWARES: Jobs = {
    "through all": ("guarded", {"wanted": 1}),
    "denied": ("guarded", {"deny": True}),
    "an exception that is caught": ("guarded", {}),
}
STORED: Jobs = {
    **{name: (name, {}) for name in ("upload", "upload_dir", "upload_json", "path_in_result", "metadata_in_result")},
}

DIFFERENCES: dict[str, str] = {
    "plain": "A dict without `status`",
    "an_error_alone": "A dict with an `error` and no `status`",
    "value_error": "`raise ValueError` in a skill",
    "path_in_result": "Keys of results' files",
    "metadata_in_result": "What `upload_file` returns, in a result",
}
"""Jobs that end in another way, and the row of the migration page that says how."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Side:
    """One of the two SDKs, and its orchestrator."""

    name: str
    python: Path
    url: str


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("compat"))
    try:
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with serving() as server:
        server.make_bucket(BUCKET)
        yield server


@pytest.fixture(scope="module")
def sides(fleet: Fleet) -> list[Side]:
    pythons = {"official": official_worker_python_of(OFFICIAL, "s3"), "ours": Path(sys.executable)}
    return [Side(name, python, fleet.start_orchestrator(ORCHESTRATOR).url) for name, python in pythons.items()]


async def ends(fleet: Fleet, side: Side, program: Path, jobs: Jobs, **settings: str) -> dict[str, Any]:
    """Run the program, and return what the orchestrator has of its worker and its jobs."""
    home = fleet.directory / f"{program.stem}-{side.name}"
    home.mkdir()
    env = {
        "WORKER_ID": program.stem,
        "WORKER_TOKEN": WORKER_TOKEN,
        "ORCHESTRATOR_URL": side.url,
        "REQUIRE_TASK_SIGNATURE": "false",
        "WORKER_PORT": "0",
        "TASK_FILES_DIR": str(home / "files"),
        "WORKER_STATE_DIR": str(home / "state"),
        "LOG_FORMAT": "json",
        **settings,
    }
    process = ManagedProcess(f"{program.stem} on {side.name}", [str(side.python), str(program)], env=env, cwd=home)
    fleet.processes.append(process)
    async with client_of(side.url) as client:
        record = await _registered(client, program.stem, process)
        job_ids = {what: await client.submit(skill, params) for what, (skill, params) in jobs.items()}
        found: dict[str, Any] = {"what is announced": _announced(record)}
        for what, job_id in job_ids.items():
            job = await client.wait(job_id, timeout=60)
            data = {key: value for key, value in job.data.items() if not key.startswith("_")}
            found[what] = _plain((job.status, job.state, data, bool(job.error), job.progress, job.message))
    process.terminate()
    return found


async def _registered(client: Client, worker_id: str, process: ManagedProcess) -> dict[str, Any]:
    try:
        async with asyncio.timeout(60):
            while True:
                record = await client.worker(worker_id)
                if record is not None:
                    return record
                assert process.running, process.output()
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{process.name} did not register: {process.output()}") from None


OURS = "avtomatika-worker"
_VERSION = {"python": "that of its environment"}
"""What is announced of Python is the interpreter's, and each side has one of its own."""


def _announced(record: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a worker's record that a program decides."""
    capabilities, software = record["capabilities"], record.get("installed_software") or {}
    return {
        "type": record["worker_type"],
        "skills": sorted((each["name"], each.get("description")) for each in record["supported_skills"]),
        "available": sorted(record["available_skills"]),
        "costs": capabilities.get("cost_per_skill"),
        "extra": capabilities.get("extra"),
        "software": {name: _VERSION.get(name, version) for name, version in software.items() if name != OURS},
        "artifacts": record.get("installed_artifacts") or [],
        "devices": (record.get("resources") or {}).get("devices") or [],
        "store": capabilities.get("s3_config_hash"),
    }


def _plain(value: Any) -> Any:
    """Replace ids, which are random."""
    return eval(re.sub(r"(task-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", repr(value)), {})  # noqa: S307


async def compare(fleet: Fleet, sides: list[Side], program: Path, jobs: Jobs, **settings: str) -> dict[str, Any]:
    """Hold the two against each other, and return what ours has of the jobs that end in another way."""
    theirs, ours = await asyncio.gather(*(ends(fleet, side, program, jobs, **settings) for side in sides))
    different = {what for what in theirs if theirs[what] != ours[what]}
    listed = DIFFERENCES.keys() & jobs.keys()
    assert {what: (theirs[what], ours[what]) for what in different - listed} == {}
    assert different == listed
    return {what: ours[what] for what in listed}


async def test_the_example_ends_its_jobs_alike_on_both(fleet: Fleet, sides: list[Side]) -> None:
    await compare(fleet, sides, ROOT / "examples" / "official_style.py", EXAMPLE)


async def test_returned_values_errors_and_arguments_mean_the_same(fleet: Fleet, sides: list[Side]) -> None:
    settings = {"RESULT_MAX_RETRIES": "1", "RESULT_RETRY_INITIAL_DELAY": "0.05"}
    ours = await compare(fleet, sides, PROGRAMS / "returns.py", RETURNS, **settings)
    assert ours["plain"][:3] == ("finished", "finished", {"a": 1})


async def test_middlewares_and_a_config_mean_the_same(fleet: Fleet, sides: list[Side]) -> None:
    await compare(fleet, sides, PROGRAMS / "middlewares.py", MIDDLEWARES)


async def test_files_are_stored_alike(fleet: Fleet, sides: list[Side], s3: S3Server) -> None:
    settings = {
        "S3_ENDPOINT_URL": s3.url,
        "S3_ACCESS_KEY": ACCESS_KEY,
        "S3_SECRET_KEY": SECRET_KEY,
        "S3_DEFAULT_BUCKET": BUCKET,
        "S3_REGION": "us-east-1",
    }
    ours = await compare(fleet, sides, PROGRAMS / "stored.py", STORED, **settings)
    assert ours["path_in_result"][2]["file"] == f"s3://{BUCKET}/ID/ID/out.txt"


@pytest.mark.parametrize("row", DIFFERENCES.values())
def test_what_differs_has_a_row_on_the_migration_page(row: str) -> None:
    page = (ROOT / "docs" / "howto" / "migrating.md").read_text("utf-8")
    assert f"| **{row}** |" in page
