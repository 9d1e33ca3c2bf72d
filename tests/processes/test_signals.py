"""Signals, threads and children of users' code around whole commands: each ends in time, with the code it documents."""

import asyncio
import contextlib
import json
import os
import signal
import sys

import psutil
import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault
from processes.conftest import gone, until

APP = """
import asyncio, atexit, concurrent.futures, ctypes, logging, multiprocessing, os, signal, subprocess, sys
import _thread, threading, time
from pathlib import Path
from avtomatika_worker import TaskContext, Worker

worker = Worker(worker_type="test")
fork = multiprocessing.get_context("fork")
AN_HOUR = 3600
kept = []

@worker.skill
def echo(params: dict) -> dict:
    return params

@worker.skill
def terminate_child() -> dict:
    child = fork.Process(target=time.sleep, args=(AN_HOUR,))
    child.start()
    child.terminate()
    child.join()
    return {"code": child.exitcode}

@worker.skill(executor="process")
def terminate_child_in_process() -> dict:
    return terminate_child()

@worker.skill
def pool() -> dict:
    with fork.Pool(2) as workers:
        return {"squares": workers.map(abs, range(4))}

@worker.skill(executor="process", timeout=20)
def pool_in_process() -> dict:
    with fork.Pool(1) as workers:
        return {"got": workers.apply_async(time.sleep, (AN_HOUR,)).get(timeout=0.2)}

@worker.skill
async def keep_executor() -> dict:
    kept.append(executor := concurrent.futures.ProcessPoolExecutor(1, mp_context=fork))
    pid = await asyncio.get_running_loop().run_in_executor(executor, os.getpid)
    return {"pid": pid}

@worker.skill
def keep_pool() -> dict:
    kept.append(workers := fork.Pool(1))
    return {"pid": workers.apply(os.getpid)}

@worker.skill
def keep_child() -> dict:
    kept.append(child := fork.Process(target=time.sleep, args=(AN_HOUR,)))
    child.start()
    return {"pid": child.pid}

@worker.skill
async def to_thread() -> dict:
    for _ in range(50):
        kept.append(asyncio.ensure_future(asyncio.to_thread(time.sleep, AN_HOUR)))
    return {}

@worker.skill
def start_thread() -> dict:
    threading.Thread(target=time.sleep, args=(AN_HOUR,), name="of the user").start()
    return {}

@worker.skill
def own_executor() -> dict:
    kept.append(executor := concurrent.futures.ThreadPoolExecutor(1))
    executor.submit(time.sleep, AN_HOUR)
    return {}

@worker.skill
def slow_atexit() -> dict:
    atexit.register(time.sleep, AN_HOUR)
    return {}

@worker.skill
async def ignore_signals() -> dict:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return {}

@worker.skill
async def run_out_of_threads() -> dict:
    def refuse(*_, **__):
        raise RuntimeError("can't start new thread")

    threading._start_new_thread = threading._start_joinable_thread = _thread.start_new_thread = refuse
    Path("is-blocked").touch()
    time.sleep(AN_HOUR)

@worker.skill
def block_the_log() -> dict:
    class Blocking(logging.Handler):
        def emit(self, record):
            Path("is-blocked").touch()
            time.sleep(AN_HOUR)

    logging.getLogger().addHandler(Blocking())
    return {}

@worker.skill(cancel_grace=0.1, events={"runs": {"type": "object"}})
def sleep(ctx: TaskContext) -> dict:
    ctx.send_event("runs", {})
    Path("runs").touch()
    time.sleep(AN_HOUR)

@worker.skill(cancel_grace=0.1, events={"runs": {"type": "object"}})
async def block(ctx: TaskContext) -> dict:
    await ctx.send_event("runs", {})
    while not Path("go-on").exists():
        await asyncio.sleep(0.01)
    Path("is-blocked").touch()
    time.sleep(AN_HOUR)
"""

SLOW = """
import time
from pathlib import Path
Path("importing").touch()
time.sleep(3600)
"""


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator(poll_time=1.0, max_attempts=1) as started:
        yield started


@pytest.fixture
def project(tmp_path):
    (tmp_path / "app.py").write_text(APP, "utf-8")
    (tmp_path / "slow.py").write_text(SLOW, "utf-8")
    return tmp_path


class Command:
    """A ``worker`` command that runs."""

    def __init__(self, process, log):
        self.process = process
        self.log = log

    @property
    def output(self):
        return self.log.read_text("utf-8", "replace")

    def send(self, number):
        self.process.send_signal(number)

    async def exit_code(self, within=20):
        async with asyncio.timeout(within):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def command(*arguments, cwd, orchestrator=None, wrapper=(), **rest):
    """Run a command beside an orchestrator; what is left of it at the end is killed."""
    log = cwd / "log"
    environment = {
        **os.environ,
        "WORKER_ID": "signals",
        "WORKER_PORT": "0",
        "WORKER_HEALTH_HOST": "127.0.0.1",
        "WORKER_SHUTDOWN_TIMEOUT": "0.2",
        "XDG_STATE_HOME": str(cwd / "state"),
        **rest.pop("environment", {}),
    }
    if orchestrator is not None:
        environment |= {"ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token}
    with log.open("wb") as out:
        streams = {"stdin": asyncio.subprocess.DEVNULL, "stdout": out, "stderr": out, **rest}
        process = await asyncio.create_subprocess_exec(
            *wrapper, sys.executable, "-m", "avtomatika_worker.cli", *arguments, cwd=cwd, env=environment, **streams
        )
    try:
        yield Command(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def running(orchestrator, project, *arguments, **rest):
    """Run ``worker run`` until it is registered."""
    async with command("run", "--app", "app:worker", *arguments, cwd=project, orchestrator=orchestrator, **rest) as it:
        await orchestrator.wait_for_worker("signals", timeout=20)
        yield it


# ---------------------------------------------------------------------------------------------- children of skills


@pytest.mark.parametrize("skill", ["terminate_child", "terminate_child_in_process"])
async def test_a_child_that_is_terminated_dies_of_it_and_the_worker_goes_on(orchestrator, project, skill):
    async with running(orchestrator, project) as worker:
        for _ in range(5):  # at once after the fork: the signal must not be taken in between
            job = await orchestrator.submit(skill, {}).done(20)
            assert job.result == {"code": -signal.SIGTERM}
        assert (await orchestrator.submit("echo", {"n": 1}).done(5)).result == {"n": 1}
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0


async def test_pools_in_skills_disturb_nothing(orchestrator, project):
    async with running(orchestrator, project) as worker:
        for _ in range(5):
            assert (await orchestrator.submit("pool", {}).done(10)).result == {"squares": [0, 1, 2, 3]}
        job = await orchestrator.submit("pool_in_process", {}).done(10)
        assert job.error["code"] == "TRANSIENT_ERROR"
        assert "TimeoutError" in job.error["message"]
        assert (await orchestrator.submit("echo", {"n": 1}).done(5)).result == {"n": 1}
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0


@pytest.mark.parametrize("skill", ["keep_executor", "keep_pool", "keep_child"])
@pytest.mark.parametrize("health", ["--health-check", "--no-health-check"])
async def test_children_that_are_kept_hold_up_no_shutdown_and_do_not_outlive_it(orchestrator, project, skill, health):
    async with running(orchestrator, project, health) as worker:
        pid = (await orchestrator.submit(skill, {}).done(10)).result["pid"]
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0
        await until(lambda: gone(pid))


async def test_a_child_left_behind_by_a_killed_worker_holds_no_port(orchestrator, project, unused_tcp_port):
    environment = {"WORKER_PORT": str(unused_tcp_port)}
    async with running(orchestrator, project, environment=environment) as worker:
        pid = (await orchestrator.submit("keep_child", {}).done(10)).result["pid"]
        worker.send(signal.SIGKILL)
        await worker.exit_code()
        assert not gone(pid)
    try:
        assert not [each for each in psutil.Process(pid).net_connections() if each.status == psutil.CONN_LISTEN]
        async with running(orchestrator, project, environment=environment) as again:
            await until(lambda: f"health server on port {unused_tcp_port}" in again.output)
    finally:
        os.kill(pid, signal.SIGKILL)


async def test_the_owner_of_the_port_is_named(orchestrator, project, unused_tcp_port):
    async with running(orchestrator, project, environment={"WORKER_PORT": str(unused_tcp_port)}) as worker:
        await until(lambda: "health server on port" in worker.output)
        other = project / "other"
        other.mkdir()
        (other / "app.py").write_text(APP, "utf-8")
        environment = {"WORKER_PORT": str(unused_tcp_port), "WORKER_ID": "other"}
        arguments = ("run", "--app", "app:worker")
        async with command(*arguments, cwd=other, orchestrator=orchestrator, environment=environment) as second:
            assert await second.exit_code() == 2
            assert f"address already in use by process {worker.process.pid} (" in second.output


# ---------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("skill", ["to_thread", "start_thread", "own_executor", "slow_atexit"])
async def test_what_python_would_wait_for_holds_up_no_shutdown(orchestrator, project, skill):
    async with running(orchestrator, project) as worker:
        assert (await orchestrator.submit(skill, {}).done(10)).result == {}
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0


@pytest.mark.parametrize("skill", ["start_thread", "slow_atexit"])
async def test_a_second_signal_does_not_even_wait_a_moment_for_it(orchestrator, project, skill):
    async with running(orchestrator, project) as worker:
        await orchestrator.submit(skill, {}).done(10)
        worker.send(signal.SIGTERM)
        await until(lambda: "worker.supervisor  stopped" in worker.output)
        worker.send(signal.SIGTERM)
        assert await worker.exit_code(4) in {0, 3}


async def blocked(orchestrator, job, project):
    """Wait until the event of a skill that blocks the loop is out, and the loop blocked."""
    await orchestrator.wait_for(lambda: job.events, 10)
    (project / "go-on").touch()
    await until((project / "is-blocked").exists)


async def test_a_second_signal_ends_a_worker_whose_loop_is_blocked(orchestrator, project):
    async with running(orchestrator, project) as worker:
        job = orchestrator.submit("block", {})
        await blocked(orchestrator, job, project)
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGINT)
        assert await worker.exit_code(12) == 3


async def check_that_two_signals_end_it(orchestrator, project, skill):
    async with running(orchestrator, project) as worker:
        orchestrator.submit(skill, {})
        await until((project / "is-blocked").exists)
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGINT)
        assert await worker.exit_code(20) == 3


async def test_signals_end_a_worker_that_can_start_no_more_threads(orchestrator, project):
    await check_that_two_signals_end_it(orchestrator, project, "run_out_of_threads")


async def test_a_log_handler_that_blocks_keeps_no_shutdown_from_its_end(orchestrator, project):
    await check_that_two_signals_end_it(orchestrator, project, "block_the_log")


async def test_the_longest_shutdown_timeout_is_no_problem(orchestrator, project):
    async with running(orchestrator, project, environment={"WORKER_SHUTDOWN_TIMEOUT": "1e308"}) as worker:
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0
        assert "Traceback" not in worker.output


async def test_a_third_signal_ends_it_at_once(orchestrator, project):
    async with running(orchestrator, project) as worker:
        job = orchestrator.submit("block", {})
        await blocked(orchestrator, job, project)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            worker.send(number)
            await asyncio.sleep(0.05)  # two of one kind that come together are one
        assert await worker.exit_code(4) == 3


async def test_a_storm_of_signals_ends_it_with_a_documented_code(orchestrator, project):
    async with running(orchestrator, project, environment={"WORKER_SHUTDOWN_TIMEOUT": "5"}) as worker:
        job = orchestrator.submit("sleep", {})
        await orchestrator.wait_for(lambda: job.events, 10)
        while worker.process.returncode is None:
            with contextlib.suppress(
                ProcessLookupError
            ):  # asyncio's own looks for an end first, and takes the exit code
                os.kill(worker.process.pid, signal.SIGTERM)
                os.kill(worker.process.pid, signal.SIGINT)
            await asyncio.sleep(0.002)
        assert worker.process.returncode == 3


async def test_a_result_that_cannot_be_delivered_is_on_disk_when_a_blocked_worker_is_ended(orchestrator, project):
    async with running(orchestrator, project) as worker:
        orchestrator.inject(Fault(call="result", kind="answer_late", delay=30, times=None))
        echoed = orchestrator.submit("echo", {"kept": True})
        await orchestrator.wait_for(lambda: any(each.call == "result" for each in orchestrator.requests), 10)
        job = orchestrator.submit("block", {})
        await blocked(orchestrator, job, project)
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGINT)
        assert await worker.exit_code(15) == 3
        (store,) = (project / "state").rglob("outbox-*.sqlite3")
        assert echoed.task_id.encode() in b"".join(each.read_bytes() for each in store.parent.glob(f"{store.name}*"))


async def test_signals_that_a_skill_takes_away_are_taken_back(orchestrator, project):
    async with running(orchestrator, project) as worker:
        await orchestrator.submit("ignore_signals", {}).done(10)
        await until(lambda: "has taken them back" in worker.output)
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0


async def test_sighup_shuts_a_single_worker_down_in_order(orchestrator, project):
    async with running(orchestrator, project) as worker:
        worker.send(signal.SIGHUP)
        assert await worker.exit_code() == 0
        assert "shutting down" in worker.output


# ---------------------------------------------------------------------------------------------- other commands

WHILE_IMPORTING = {
    "run": (("run", "--app", "slow:worker"), 0),
    "dev": (("dev", "--app", "slow:worker", "--port", "0"), 0),
    "call": (("call", "--app", "slow:worker", "echo"), 128),
    "skills": (("skills", "--app", "slow:worker"), 128),
    "doctor": (("doctor", "--app", "slow:worker"), 128),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("name", WHILE_IMPORTING)
async def test_a_signal_while_the_app_is_imported_ends_the_command_at_once(orchestrator, project, name, number):
    arguments, code = WHILE_IMPORTING[name]
    async with command(*arguments, cwd=project, orchestrator=orchestrator) as it:
        await until((project / "importing").exists)
        it.send(number)
        assert await it.exit_code(5) == (code and code + number)


async def test_ctrl_c_ends_a_call_of_a_def_that_never_checks_for_cancellation(project):
    nowhere = asyncio.subprocess.DEVNULL
    async with command("call", "--app", "app:worker", "sleep", "--json", cwd=project, stderr=nowhere) as it:
        await until((project / "runs").exists)
        it.send(signal.SIGINT)
        assert await it.exit_code(12) == 1
        assert json.loads(it.output)["status"] == "cancelled"


async def test_a_second_signal_ends_a_call_at_once(project):
    async with command("call", "--app", "app:worker", "sleep", cwd=project) as it:
        await until((project / "runs").exists)
        it.send(signal.SIGINT)
        await asyncio.sleep(0.05)  # two that come together are one
        it.send(signal.SIGTERM)
        assert await it.exit_code(3) == 3


async def test_ctrl_c_ends_the_demo(tmp_path):
    pytest.importorskip("PIL")
    async with command("demo", cwd=tmp_path) as it:
        await until(lambda: "registered" in it.output, 30)
        it.send(signal.SIGINT)
        assert await it.exit_code(5) == 128 + signal.SIGINT


async def test_worker_dev_ends_while_a_def_runs(project, unused_tcp_port):
    async with command("dev", "--app", "app:worker", "--port", str(unused_tcp_port), cwd=project) as it:
        await until(lambda: "Stop with" in it.output)
        body = json.dumps({"skill": "sleep", "params": {}})
        reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
        head = f"POST /api/jobs HTTP/1.0\r\nHost: 127.0.0.1:{unused_tcp_port}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        assert b" 20" in await reader.readline()
        writer.close()
        await until((project / "runs").exists)
        it.send(signal.SIGINT)
        assert await it.exit_code() == 0


# ---------------------------------------------------------------------------------------------- standard streams


@pytest.mark.parametrize("how", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full", ">&- 2>/dev/null </dev/null", "2>&-"])
async def test_closed_full_and_missing_streams_do_not_matter(orchestrator, project, how):
    wrapper = ("sh", "-c", f'exec "$@" {how}', "-")
    async with running(orchestrator, project, wrapper=wrapper) as worker:
        for skill in ("echo", "terminate_child_in_process"):
            assert (await orchestrator.submit(skill, {}).done(10)).result is not None
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0


async def test_a_broken_pipe_behind_the_log_does_not_matter(orchestrator, project):
    reading, writing = os.pipe()
    async with running(orchestrator, project, stdout=writing, stderr=writing) as worker:
        os.close(writing)
        os.close(reading)
        assert (await orchestrator.submit("echo", {"n": 1}).done(10)).result == {"n": 1}
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0


FAILING = """
import logging, os, signal, sys, time
from avtomatika_worker._signals import hear_signals
from avtomatika_worker.supervisor import Ending
from avtomatika_worker.worker.program import end_by_force

class Blocking(logging.Handler):
    def emit(self, record):
        time.sleep(3600)

class Program:
    ending = Ending()

    def rescue(self):
        raise OSError("the disk is gone")

def fail_first(number, times):
    if number == signal.SIGTERM:
        raise ValueError("no")
    if blocked:
        os._exit(3)
    end_by_force(Program())

blocked = "blocked" in sys.argv
logging.getLogger().handlers = [Blocking() if blocked else logging.StreamHandler()]
hear_signals(fail_first)
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(3600)
"""


@pytest.mark.parametrize("log", ["blocked", "written"])
async def test_a_signal_whose_handling_fails_keeps_the_next_from_nothing(log):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FAILING, log, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 3
    if log == "written":
        assert b"handling a signal failed" in errors
        assert b"results may not be on disk" in errors
        assert b"the disk is gone" in errors
