"""An orchestrator whose storage is Redis, which makes lists of empty objects in what a worker has announced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.environments import InstallationError
from cluster.processes import ManagedProcess, free_port
from cluster.redis_server import READY, redis_command
from e2e.client import client_of
from e2e.fleet import Fleet, Orchestrator


@pytest.fixture
def orchestrator(fleet: Fleet, tmp_path: Path) -> Iterator[Orchestrator]:
    port = free_port()
    redis = ManagedProcess("redis", redis_command(port, tmp_path), env={}, cwd=tmp_path)
    try:
        redis.wait_for_line(lambda line: READY in line, timeout=30)
        orchestrator = fleet.start_orchestrator("1.0b30", env={"REDIS": str(port)}, extras=("redis",))
        yield orchestrator
        orchestrator.process.kill()
    except InstallationError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        redis.kill()


async def test_skills_whose_schemas_have_empty_objects_get_tasks_and_keep_their_contract(
    fleet: Fleet, orchestrator: Orchestrator
) -> None:
    worker = fleet.start_worker(orchestrator, "schemas", app="schemas_app")
    jobs: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("loose", {"anything": 1}, {"anything": 1, "rows": [], "options": {}}),
        ("loose", {"anything": {}, "rows": [{}]}, {"anything": {}, "rows": [{}], "options": {}}),
        ("nothing", {}, {}),
        ("default", {}, {"was": "dict"}),
    ]
    async with client_of(orchestrator.url) as client:
        for name, params, expected in jobs:
            job = await client.run(worker.skill(name), params)
            assert (job.status, job.data, job.error) == ("finished", expected, ""), name
    assert "violated contract" not in orchestrator.process.output()
    worker.process.terminate()
    assert worker.process.wait(timeout=30) == 0
