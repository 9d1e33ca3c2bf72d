"""The Dockerfiles, built and run (``make image``): the repository's, that of ``worker init``, the orchestrator's."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from avtomatika_worker.testing import EmbeddedOrchestrator, JobState
from cluster.redis_server import redis_command
from deploy.images import CACHE, ROOT, Container, MirrorUnreachableError, built, make_base_image, why_not

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(1800)]

NAMES = ("repository", "project", "orchestrator")

STATES = """
import pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/status"):
    print(*(line.split("\\t")[1] for line in path.read_text().splitlines() if line.startswith(("State:", "PPid:"))))
"""
"""Prints the state and the parent of each process."""


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Container]]:
    """All images, by name."""
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        make_base_image()
    except MirrorUnreachableError as error:
        pytest.skip(f"Debian's packages could not be downloaded: {error}")
    directory = tmp_path_factory.mktemp("init")
    subprocess.run([sys.executable, "-m", "avtomatika_worker.cli", "init", "project"], cwd=directory, check=True)
    with (
        built(ROOT, "avtomatika-test-repository") as repository,
        built(directory / "project", "avtomatika-test-project") as project,
        built(ROOT / "deploy" / "orchestrator", "avtomatika-test-orchestrator") as orchestrator,
    ):
        yield dict(zip(NAMES, (repository, project, orchestrator), strict=True))


@asynccontextmanager
async def worker(container: Container) -> AsyncIterator[tuple[EmbeddedOrchestrator, subprocess.Popen[bytes], int]]:
    """Run an image's worker with an orchestrator that it is registered with; give its port as well."""
    async with EmbeddedOrchestrator(poll_time=2.0) as orchestrator:
        port = free_port()
        environ = {
            "ORCHESTRATOR_URL": orchestrator.url,
            "WORKER_TOKEN": orchestrator.token or "",
            "WORKER_ID": "contained",
            "WORKER_PORT": str(port),
        }
        with container.start(environ=environ) as process:
            await orchestrator.wait_for_worker("contained", timeout=60)
            yield orchestrator, process, port


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("name", NAMES)
def test_it_writes_only_to_its_volumes_and_world_writable_directories(containers, name):
    container = containers[name]
    command = ["find", "/", "-xdev", "-writable", "-not", "-type", "l"]
    with container.start("sleep", "60", read_only=False) as process:
        found = container.execute(process, *command, "-not", "-path", "/dev/*", "-not", "-path", "/proc/*")
    assert set(found.stdout.split()) == {*(container.config["Volumes"] or ()), "/tmp", "/var/tmp", "/run/lock"}


@pytest.mark.parametrize("name", NAMES)
def test_its_user_is_a_number_and_not_root(containers, name):
    assert int(containers[name].config["User"]) > 0


@pytest.mark.parametrize(
    ("name", "skill", "params"),
    [("repository", "pause", {"seconds": 0.1, "number": 1}), ("project", "greet", {"name": "Ada"})],
)
async def test_its_worker_registers_is_healthy_and_runs_a_task_on_a_read_only_root(containers, name, skill, params):
    container = containers[name]
    async with worker(container) as (orchestrator, process, port):
        job = orchestrator.submit(skill, params)
        await orchestrator.wait_for(lambda: job.state.final)
        assert job.state is JobState.FINISHED, job
        kind, *check = container.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        done = await asyncio.to_thread(container.execute, process, *check, environ={"WORKER_PORT": str(port)})
        assert done.returncode == 0, done.stderr
        assert container.owner(process) == container.config["User"]
        assert await asyncio.to_thread(container.stop, process) == 0


def test_the_orchestrator_answers_on_a_read_only_root(containers, tmp_path):
    redis_port, port = free_port(), free_port()
    environ = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis_port), "API_HOST": "127.0.0.1", "API_PORT": str(port)}
    redis = subprocess.Popen(redis_command(redis_port, tmp_path), stdout=subprocess.DEVNULL)
    try:
        wait_for_port(redis_port)
        with containers["orchestrator"].start(environ={**environ, "GLOBAL_WORKER_TOKEN": "worker"}) as process:
            wait_for_port(port)
            assert containers["orchestrator"].stop(process) == 0
    finally:
        redis.terminate()
        redis.wait()


async def test_its_worker_lets_a_running_task_finish_after_sigterm(containers):
    container = containers["repository"]
    async with worker(container) as (orchestrator, process, _):
        job = orchestrator.submit("pause", {"seconds": 2.0, "number": 1})
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        assert await asyncio.to_thread(container.stop, process) == 0
        assert job.state is JobState.FINISHED, job


@pytest.mark.parametrize("name", ["repository", "project"])
def test_its_process_1_reaps_orphans(containers, name):
    container = containers[name]
    with container.start("sleep", "60") as process:
        orphan = container.execute(process, "sh", "-c", "sleep 0.1 & exec true")
        assert orphan.returncode == 0
        left = [["unknown"]]
        deadline = time.monotonic() + 30
        while left and time.monotonic() < deadline:
            lines = container.execute(process, "python", "-c", STATES).stdout.splitlines()
            assert lines
            left = [line for line in lines if line.startswith("Z")]
        assert left == []
