"""How several worker processes end: by signals, by mistakes, by crashes."""

import asyncio
import json
import os
import pty
import select
import signal
import socket
import sys

import pytest

from avtomatika_worker.devserver import JobState
from avtomatika_worker.fleet.membership import Command
from avtomatika_worker.policy.restarts import RESTARTS
from fleet.support import APP, fleet

TERMINAL = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes standard input the terminal of this process, as a shell has it, and becomes the command."""

MEMBER = """
import sys, pathlib
from avtomatika_worker.fleet.control import Control
from avtomatika_worker.fleet.membership import Membership, Ready
control = Control(Membership("-1", int(sys.argv[1]), "w", pathlib.Path("socket")))
control.start()
control.greet(Ready("w-1", "127.0.0.1", 8080, False, "json", "INFO", 5.0))
"""
"""A member that reports to its fleet, and waits for its order to begin."""

BLOCKED_MEMBER = """
import asyncio, sys, pathlib, time
from avtomatika_worker.fleet.control import Control
from avtomatika_worker.fleet.membership import Membership, Ready
from avtomatika_worker.supervisor import Ending

class Worker:
    ending, shutdown_limit = Ending(), 0.1

    def request_shutdown(self): ...

    def announce_draining(self): ...

    def rescue(self):
        print("rescued", flush=True)

async def main():
    print("blocked", flush=True)
    time.sleep(3600)

control = Control(Membership("-1", int(sys.argv[1]), "w", pathlib.Path("socket")))
control.start()
control.greet(Ready("w-1", "127.0.0.1", 8080, False, "json", "INFO", 0.1))
asyncio.run(control.run(Worker(), main))
"""
"""A member whose main loop is blocked as soon as it begins."""


async def napping(orchestrator, skill="nap", seconds=0.7):
    """Submit a task, and return its job once it runs."""
    job = orchestrator.submit(skill, {"seconds": seconds})
    await orchestrator.wait_for(lambda: job.progress.message)
    return job


@pytest.mark.parametrize("who", ["terminal", "systemd"])
async def test_a_signal_that_everybody_gets_counts_once(orchestrator, tmp_path, who):
    theirs, ours = pty.openpty()
    prefix = (sys.executable, "-c", TERMINAL)
    async with fleet(tmp_path, orchestrator, "--workers", "2", prefix=prefix, stdin=ours) as workers:
        os.close(ours)
        members = await workers.up(2)
        job = await napping(orchestrator)
        if who == "terminal":
            os.write(theirs, b"\x03")
        else:
            for pid in members.values():
                os.kill(pid, signal.SIGTERM)
            workers.send(signal.SIGTERM)
        assert await workers.end() == 0
        assert (await job.done()).state is JobState.FINISHED
    os.close(theirs)


async def test_a_closed_terminal_ends_it_as_a_signal_does(orchestrator, tmp_path):
    theirs, ours = pty.openpty()
    prefix = (sys.executable, "-c", TERMINAL)
    async with fleet(tmp_path, orchestrator, "--workers", "2", prefix=prefix, stdin=ours) as workers:
        os.close(ours)
        await workers.up(2)
        os.close(theirs)
        assert await workers.end() == 0


async def test_no_member_outlives_a_fleet_that_did_not_read_its_report():
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEMBER, str(theirs.fileno()), pass_fds=[theirs.fileno()]
    )
    theirs.close()
    await asyncio.to_thread(select.select, [ours], [], [], 30)
    ours.close()  # which resets the connection, as something is unread
    async with asyncio.timeout(30):
        assert await process.wait() == 0


async def test_a_blocked_member_whose_fleet_dies_saves_its_results_before_it_ends():
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BLOCKED_MEMBER,
        str(theirs.fileno()),
        pass_fds=[theirs.fileno()],
        stdout=asyncio.subprocess.PIPE,
    )
    theirs.close()
    await asyncio.to_thread(ours.recv, 4096)
    ours.sendall(Command.GO.value)
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"blocked\n"
        ours.close()
        output, _ = await process.communicate()
    assert (process.returncode, output) == (3, b"rescued\n")


async def test_a_second_signal_cuts_the_shutdown_short_and_a_third_kills(orchestrator, tmp_path):
    async with fleet(tmp_path, orchestrator, "--workers", "2", MAX_CONCURRENT_TASKS="1") as workers:
        await workers.up(2)
        await napping(orchestrator, seconds=300)
        job = orchestrator.submit("block", {"seconds": 300})
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        workers.send(signal.SIGTERM)
        await workers.record("fleet_stopping")
        workers.send(signal.SIGTERM)
        await workers.record("stopped")  # the one that naps
        workers.send(signal.SIGINT)
        assert await workers.end() == 3
        assert "does not end: killing it" in workers.output


async def test_a_blocked_main_loop_makes_the_fleet_unlive_and_is_named(orchestrator, tmp_path):
    async with fleet(tmp_path, orchestrator, "--workers", "2", WORKER_LOOP_BLOCKED_LIMIT="0.5") as workers:
        await workers.up(2)
        orchestrator.submit("block", {"seconds": 2})
        async with asyncio.timeout(10):
            while (answer := await workers.get("/live"))[0] == 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        reason = json.loads(answer[1])["reason"]
        assert reason.startswith(("w-1: the main loop has been blocked", "w-2: the main loop has been blocked"))
        assert (await workers.get("/ready"))[0] == 200
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0


async def test_an_app_that_crashes_is_started_again_ever_more_slowly(tmp_path):
    app = APP + "\nif os.environ.get('CRASH'): os._exit(7)\n"
    async with fleet(tmp_path, None, "--workers", "2", app=app, CRASH="1") as workers:
        ends = [await workers.record("process_ended") for _ in range(3)]
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0
    assert [each["exit_code"] for each in ends] == [7, 7, 7]
    for times, each in enumerate(ends):
        assert f"({times + 1} in a row)" in each["message"]
        assert each["delay"] <= RESTARTS.initial * 2**times


async def test_one_that_crashes_leaves_the_others_alone(orchestrator, tmp_path):
    app = APP + "\nif '--member' in __import__('sys').argv and ' 2,' in ' '.join(__import__('sys').argv): os._exit(7)\n"
    async with fleet(tmp_path, orchestrator, "--workers", "2", app=app) as workers:
        await workers.up(1)
        await workers.record("process_ended")
        assert (await workers.get("/ready"))[0] == 200
        assert (await workers.get("/live"))[0] == 200
        assert (await orchestrator.submit("nap").done()).state is JobState.FINISHED
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0


@pytest.mark.parametrize(
    ("app", "environment", "problem"),
    [
        ("nonsense(\n", {}, "worker: --app: importing my_app failed: SyntaxError"),
        (APP, {"MAX_CONCURRENT_TASKS": "none"}, "worker: MAX_CONCURRENT_TASKS='none': must be a whole number"),
        (APP, {"WORKER_ID": "x" * 127}, "with the process's number: must be 1 to 128 characters"),
        (APP, {"TLS_CA_PATH": "my_app.py"}, "TLS_CA_PATH"),  # found out only when everything is put together
    ],
)
async def test_what_is_wrong_is_reported_once_with_exit_code_2(tmp_path, app, environment, problem):
    async with fleet(tmp_path, None, "--workers", "2", app=app, **environment) as workers:
        assert await workers.end() == 2
    assert sum(line.startswith("worker: ") for line in workers.lines) == 1, workers.output
    assert problem in workers.output


async def test_a_taken_port_ends_all_with_exit_code_2(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with fleet(tmp_path, None, "--workers", "2", WORKER_PORT=str(port)) as workers:
            assert await workers.end() == 2
    assert f"worker: WORKER_PORT={port}: the health server cannot listen" in workers.output


@pytest.mark.parametrize(
    ("options", "environment", "problem"),
    [
        (("--workers", "2", "--reload"), {}, "--reload runs one process, --workers asks for 2"),
        (("--reload",), {"WORKER_PROCESSES": "3"}, "--reload runs one process, WORKER_PROCESSES asks for 3"),
        ((), {"WORKER_PROCESSES": "0"}, "WORKER_PROCESSES='0': must be a whole number of at least 1"),
        (("--member", "1"), {}, "--member is for the processes that `worker run --workers` starts"),
    ],
)
async def test_options_that_do_not_fit_are_refused(tmp_path, options, environment, problem):
    async with fleet(tmp_path, None, *options, **environment) as workers:
        assert await workers.end() == 2
    assert problem in workers.output
    assert len(workers.lines) == 1


async def test_one_worker_is_run_without_a_fleet_under_its_own_id(orchestrator, tmp_path):
    (tmp_path / ".env").write_text("WORKER_PROCESSES=3\n", "utf-8")
    async with fleet(tmp_path, orchestrator, "--workers", "1") as worker:
        await orchestrator.wait_for_worker("w")
        worker.send(signal.SIGTERM)
        assert await worker.end() == 0


async def test_text_logs_name_the_worker_and_a_random_id_is_shared(orchestrator, tmp_path):
    (tmp_path / ".env").write_text("WORKER_PROCESSES=2\n", "utf-8")
    async with fleet(tmp_path, orchestrator, WORKER_ID="", LOG_FORMAT="text") as workers:
        await orchestrator.wait_for(lambda: len(orchestrator.workers) == 2)
        first, second = sorted(orchestrator.workers)
        assert first.endswith("-1")
        assert second == first.removesuffix("1") + "2"
        for _ in range(2):
            line = await workers.line_with("registered with")
            assert f"worker={first}" in line or f"worker={second}" in line
        workers.send(signal.SIGTERM)
        assert await workers.end() == 0
    assert list((tmp_path / "state").glob("*.sqlite3")) == []
