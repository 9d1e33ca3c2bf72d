"""One program in the official style, on the official SDK and on this one: an orchestrator has the same in the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.environments import official_worker_python_of
from cluster.processes import ManagedProcess
from e2e.client import client_of
from e2e.fleet import WORKER_TOKEN, Fleet

EXAMPLE = Path(__file__).parents[2] / "examples" / "official_style.py"
OFFICIAL, ORCHESTRATOR = "1.0b20", "1.0b30"

JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "a success, its data changed by the middleware": ("greet", {"name": "Ann"}),
    "a status of the skill's own": ("greet", {}),
    "files": ("summarize", {"text": "One. Two."}),
    "a failure with a code": ("refuse", {"why": "late"}),
    "a cancellation": ("stop", {}),
}

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("compat"))
    try:
        yield fleet
    finally:
        fleet.stop()


async def outcomes(fleet: Fleet, name: str, python: Path, program: Path) -> dict[str, Any]:
    """Run the program with this Python at an orchestrator of its own, and return what that has of each job."""
    orchestrator = fleet.start_orchestrator(ORCHESTRATOR)
    home = fleet.directory / name
    home.mkdir()
    env = {
        "WORKER_ID": "same",
        "WORKER_TOKEN": WORKER_TOKEN,
        "ORCHESTRATOR_URL": orchestrator.url,
        "REQUIRE_TASK_SIGNATURE": "false",
        "WORKER_PORT": "0",
        "TASK_FILES_DIR": str(home / "files"),
        "WORKER_STATE_DIR": str(home / "state"),
        "LOG_FORMAT": "json",
    }
    process = ManagedProcess(name, [str(python), str(program)], env=env, cwd=home)
    fleet.processes.append(process)
    async with client_of(orchestrator.url) as client:
        try:
            async with asyncio.timeout(60):
                while await client.worker("same") is None:  # noqa: ASYNC110 - an HTTP interface has no events
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{name} did not register: {process.output()}") from None
        found: dict[str, Any] = {}
        for what, (skill, params) in JOBS.items():
            job = await client.run(skill, params, timeout=60)
            data = {key: value for key, value in job.data.items() if not key.startswith("_")}
            found[what] = (job.status, job.state, data, job.error)
    return found


async def test_the_example_ends_its_jobs_alike_on_both(fleet: Fleet) -> None:
    theirs, ours = await asyncio.gather(
        outcomes(fleet, "official", official_worker_python_of(OFFICIAL), EXAMPLE),
        outcomes(fleet, "ours", Path(sys.executable), EXAMPLE),
    )
    assert ours == theirs
    assert ours["a success, its data changed by the middleware"][2]["words"] == 2
