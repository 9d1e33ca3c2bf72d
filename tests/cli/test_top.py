"""``worker top`` as a process, beside a worker, a fleet, and what is neither."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.monitoring.health import Health, HealthServer

COMMAND = (sys.executable, "-m", "avtomatika_worker.cli", "top")
ENVIRONMENT = {"PATH": "", "COLUMNS": "100", "LINES": "30", "PYTHONUTF8": "1", "TERM": "xterm"}


async def top(*arguments, **environment):
    """Return exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env={**ENVIRONMENT, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def answering(details):
    """Serve a health of these details, and yield its URL."""
    health = Health(not_live=None, not_ready=None, details=details)
    server = HealthServer("127.0.0.1", 0, lambda: health)
    await asyncio.to_thread(server.open)
    try:
        yield f"http://127.0.0.1:{server.bound_port}"
    finally:
        await asyncio.to_thread(server.close)


@pytest.fixture
async def place():
    """A worker whose one task is half done, and where it answers for its health."""
    worker, gate = Worker(worker_type="render-farm", max_concurrent_tasks=3), asyncio.Event()

    @worker.skill
    async def render(ctx: TaskContext):
        await asyncio.sleep(0.01)  # the time that is left is that which has passed
        ctx.send_progress(0.5, "a secret text")
        await gate.wait()

    @worker.skill(max_concurrent=1)
    async def idle():
        pass

    with tempfile.TemporaryDirectory(prefix="w") as directory:
        where = f"unix:{directory}/health"
        async with EmbeddedOrchestrator(poll_time=0.5) as orchestrator:
            environment = {
                "WORKER_ID": "w1",
                "WORKER_TOKEN": orchestrator.token,
                "ORCHESTRATOR_URL": orchestrator.url,
                "WORKER_HEALTH_HOST": where,
            }
            main = asyncio.create_task(worker.main(worker.load_settings(environment)))
            job = orchestrator.submit("render")
            await orchestrator.wait_for(lambda: job.progress.fraction == 0.5)
            yield where, job
            gate.set()
            await worker.shutdown()
            await main


async def test_one_report_for_machines(place):
    where, job = place
    code, out, err = await top("--url", where, "--once", "--json")
    assert (code, err) == (0, "")
    health = json.loads(out)
    (task,) = health["tasks"]
    assert (task["skill"], task["job_id"], task["task_id"]) == ("render", job.job_id, job.task_id)
    assert (task["progress"], task["hand_outs"]) == (0.5, 1)
    assert task["seconds"] >= task["seconds_left"] == 0.0
    assert health["skills"] == [
        {"name": "render", "available": True, "hot": False},
        {"name": "idle", "available": True, "hot": False},
    ]
    assert health["slots"]["running"] == 1
    assert "a secret text" not in out


async def test_one_report_for_people(place):
    where, job = place
    code, out, err = await top("--url", where)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith("w1 render-farm")
    assert lines[0].endswith("busy")
    assert "1 of 3 running" in lines[1]
    assert "registered protocol 1.0b17" in lines[2]
    assert lines[3:5] == ["outbox empty", "skills render ×1 idle"]
    assert lines[-1].startswith(f"render {job.job_id[:8]} 0:0")
    assert lines[-1].endswith("50% 0:00")


async def test_it_reports_repeatedly(place):
    where, _ = place
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--url", where, "--json", "--interval", "0.1", env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE
    )
    looks = [json.loads(await process.stdout.readline()) for _ in range(3)]
    assert [look["tasks"][0]["skill"] for look in looks] == ["render"] * 3
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130


async def test_it_ends_with_its_reader():
    async with answering({"worker_id": "w1"}) as url:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--url", url, "--json", "--interval", "0.1", env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE
        )
        assert json.loads(await process.stdout.readline())["worker_id"] == "w1"
        process._transport.get_pipe_transport(1).close()  # noqa: SLF001 - as `head -1` does
        assert await process.wait() == 0


async def test_on_a_terminal_it_is_live_and_leaves_the_terminal_as_it_was(place):
    where, _ = place
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--url", where, "--interval", "0.1", env=ENVIRONMENT, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    shown, loop = bytearray(), asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(ours, readable.set)

    async def until(text):
        async with asyncio.timeout(20):
            while text not in shown:
                await readable.wait()
                readable.clear()
                with contextlib.suppress(BlockingIOError, OSError):
                    shown.extend(os.read(ours, 65536))

    try:
        await until(b"\x1b[?1049h")  # the terminal's other screen
        await until(b"render-farm")
        shown.clear()
        await until(b"render-farm")  # it is drawn again
        process.send_signal(signal.SIGINT)
        await until(b"\x1b[?1049l")
        assert await process.wait() == 130
    finally:
        loop.remove_reader(ours)
        os.close(ours)


async def test_by_default_it_asks_the_worker_of_this_environment():
    async with answering({"worker_id": "w7", "worker_type": "t", "status": "idle"}) as url:
        code, out, _ = await top(WORKER_PORT=url.rpartition(":")[2])
    assert code == 0
    assert out.startswith("w7")


async def test_a_fleet_is_shown_process_by_process():
    task = {"skill": "echo", "job_id": "j", "seconds": 3725.0, "progress": None, "seconds_left": None, "hand_outs": 3}
    processes = [
        {"worker_id": "w-1", "state": "running", "health": {"status": "idle", "tasks": [task]}},
        {"worker_id": "w-2", "state": "running", "health": {"status": "idle", "tasks": []}},
        {"worker_id": "w-3", "state": "starting", "health": None},
    ]
    async with answering({"processes": processes}) as url:
        _, out, _ = await top("--url", url)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "echo (#3) j 1:02:05 ?" in lines
    assert [line for line in lines if line.startswith("w-")] == ["w-1 busy", "w-2 idle", "w-3 starting"]


async def test_what_a_worker_says_does_not_control_the_terminal():
    async with answering({"worker_id": "w\x1b[2J", "tasks": [{"skill": "\x1b]0;x\x07"}], "links": 5}) as url:
        code, out, _ = await top("--url", url)
    assert code == 0
    assert "\x1b[2J" not in out
    assert "\x1b]0" not in out


async def test_what_a_worker_says_stays_json_for_machines():
    said = {"worker_id": "w\x9b\x85\u202e\x7f\U000e0001", "live": True}
    async with answering(said) as url:
        code, out, _ = await top("--url", url, "--json", "--once")
    assert code == 0
    assert json.loads(out)["worker_id"] == said["worker_id"]
    assert out.rstrip("\n").isprintable()


async def test_where_no_worker_answers_it_says_so():
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    code, _, err = await top("--url", f"http://127.0.0.1:{free}")
    assert code == 1
    assert f"no worker answers at http://127.0.0.1:{free}: connection refused" in err
    async with EmbeddedOrchestrator() as orchestrator:
        code, _, err = await top("--url", orchestrator.url)
    assert code == 1
    assert "what answers there is not a health server" in err
    code, _, err = await top("--url", f"unix:{Path(tempfile.gettempdir()) / 'nobody'}")
    assert (code, "no such file or directory" in err) == (1, True)


@pytest.mark.parametrize("wrong", ["ftp://here", "here:8083", "http://here:port", "http://"])
async def test_an_invalid_url_is_a_usage_error(wrong):
    code, _, err = await top("--url", wrong)
    assert code == 2
    assert wrong in err
