"""The commands for development: no page gets in, no token is known beforehand, and keys that are set are used."""

import asyncio
import json
import re
import sys

import aiohttp
import pytest

from avtomatika_worker import Worker
from avtomatika_worker.devserver import Console, EmbeddedOrchestrator
from avtomatika_worker.errors import TransientError
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.store_settings import StoreSettings
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.testing import WorkerHarness

KEY = "an-orchestrators-key"
PATHS = [
    ("GET", "/"),
    ("GET", "/api/jobs"),
    ("POST", "/api/jobs"),
    ("GET", "/console/"),
    ("GET", "/openapi.json"),
    ("POST", "/_worker/workers/register"),
    ("GET", "/_worker/workers/w1/tasks/next"),
    ("PATCH", "/_worker/workers/w1"),
    ("POST", "/_worker/tasks/result"),
    ("GET", "/_worker/ws/w1"),
    ("GET", "//api/jobs"),
    ("GET", "/%61pi/jobs"),
    ("GET", "/nothing"),
]


@pytest.mark.parametrize("bound_to", ["127.0.0.1", "0.0.0.0"])
async def test_no_path_is_answered_under_a_name_that_somebody_else_can_own(bound_to):
    """A page of theirs whose name suddenly resolves to this machine: its requests have its own origin."""
    async with (
        EmbeddedOrchestrator(host=bound_to, console=Console()) as orchestrator,
        aiohttp.ClientSession() as session,
    ):
        port = orchestrator.port
        for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.com", "localhost.evil.com", "[", ""):
            headers = {"Host": host, "Origin": f"http://{host}", "X-Worker-Token": "dev-token", "X-Worker-ID": "w1"}
            for method, path in PATHS:
                url = f"http://127.0.0.1:{port}{path}"
                async with session.request(method, url, headers=headers, data=b"{}") as answer:
                    assert answer.status in {400, 403}, (host, path)
        assert orchestrator.workers == {}


APP = """
from avtomatika_worker import Worker
worker = Worker()

@worker.skill
async def echo(params: dict) -> dict:
    return params
"""


@pytest.fixture
def run(tmp_path):
    """Start a ``worker`` command in a directory with an app."""
    (tmp_path / "app.py").write_text(APP, "utf-8")

    async def start(*arguments, **environment):
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-m", "avtomatika_worker.cli", *arguments),
            cwd=tmp_path,
            env={"PATH": "", "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "PYTHONUTF8": "1", **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    return start


async def banner(process):
    """Return the lines of the banner of ``worker dev``."""
    lines = []
    while "Stop with" not in (lines[-1] if lines else ""):
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line, lines
        lines.append(line.decode())
    return "".join(lines)


async def end(process):
    process.terminate()
    await process.communicate()


async def test_each_run_of_dev_has_a_token_of_its_own(run):
    tokens = []
    for arguments in ((), (), ("--token", "fixed-by-hand")):
        process = await run("dev", "--app", "app:worker", "--port", "0", *arguments)
        shown = await banner(process)
        await end(process)
        tokens.append(re.search(r"Token for workers: (\S+)", shown)[1])
    assert tokens[2] == "fixed-by-hand"
    assert len({*tokens, "dev-token"}) == 4
    assert min(map(len, tokens[:2])) >= 20


@pytest.mark.parametrize("protocol", ["1.0b17", "1.0b7"])
async def test_dev_runs_tasks_with_a_key_in_the_environment(run, protocol):
    environment = {"ORCHESTRATOR_SECRET_KEY": KEY, "REQUIRE_TASK_SIGNATURE": "true"}
    process = await run("dev", "--app", "app:worker", "--port", "0", "--protocol", protocol, **environment)
    try:
        url = re.search(r"development at (\S+)", await banner(process))[1]
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/api/jobs", json={"skill": "echo", "params": {"a": 1}}) as answer:
                job = await answer.json()
            async with session.get(f"{url}/api/jobs/{job['job_id']}?wait=30") as answer:
                assert (await answer.json())["result"] == {"a": 1}
    finally:
        await end(process)


async def test_call_runs_the_task_with_a_key_in_the_environment(run):
    process = await run("call", "--app", "app:worker", "echo", '{"a": 1}', "--json", ORCHESTRATOR_SECRET_KEY=KEY)
    out, _ = await process.communicate()
    assert (process.returncode, json.loads(out)["data"]) == (0, {"a": 1})


@pytest.mark.parametrize("given", ["environ", "settings"])
async def test_the_harness_signs_with_the_key_that_its_worker_has(given):
    worker = Worker()

    @worker.skill
    async def echo(params: dict) -> dict:
        return params

    key = {"environ": {"ORCHESTRATOR_SECRET_KEY": KEY}, "settings": {"orchestrator_secret_key": KEY}}[given]
    async with WorkerHarness(worker, **{given: key}) as harness:
        assert (await harness.run("echo", {"a": 1})).data == {"a": 1}
    async with (
        EmbeddedOrchestrator(secret_key="another", max_attempts=1) as orchestrator,
        WorkerHarness(worker, orchestrator=orchestrator, **{given: key}) as harness,
    ):
        assert (await harness.run("echo", {"a": 1})).error.code == "SECURITY_ERROR"


async def test_an_error_of_a_store_does_not_say_where_it_is(tmp_path):
    """The text goes to the orchestrator, and on to the client."""
    settings = StoreSettings(
        endpoint_url="http://127.0.0.1:1/inner",
        access_key="AK",
        secret_key="SK",
        default_bucket="bucket",
        attempts=1,
        backoff=BackoffPolicy(0.1),
    )
    files = Files(tmp_path, settings)
    task = files.for_task("j", "t", lambda _: None)
    try:
        with pytest.raises(TransientError) as caught:
            await task.bring("s3://bucket/key")
        text = f"{caught.value} {caught.value.details}"
        assert "s3://bucket/key" in text
        for hidden in ("127.0.0.1", "http", "inner", "AK", "SK"):
            assert hidden not in text
    finally:
        await task.remove()
        files.close()
