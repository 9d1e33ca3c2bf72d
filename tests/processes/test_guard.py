"""What a skill in a process leaves behind, and what writes to its socket."""

import asyncio
import os
import signal
import socket
import sys

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.execution.processes import wire
from avtomatika_worker.execution.processes.parent_channel import ParentChannel
from processes.conftest import gone, until
from processes.test_programs import program

linux = pytest.mark.skipif(sys.platform != "linux", reason="a subreaper is Linux's")

PROGRAM = """
import os, socket, stat, subprocess, time
from avtomatika_worker import TaskContext, Worker

worker = Worker(worker_type="test")

def started(*command, **how):
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how).pid

@worker.skill(executor="process", cancel_grace=0.1, events={"has": {"type": "object"}})
def spawn(params: dict, ctx: TaskContext) -> dict:
    pids = [started("sleep", "300"), started("sleep", "300", start_new_session=True)]
    if os.fork() == 0:  # a daemon: forked twice, in a session of its own
        os.setsid()
        pid = os.fork()
        if pid:
            with open("daemon.tmp", "w") as file:
                file.write(str(pid))
            os.rename("daemon.tmp", "daemon")
            os._exit(0)
        os.execlp("sleep", "sleep", "300")
    while not os.path.exists("daemon"):
        time.sleep(0.01)
    pids.append(int(open("daemon").read()))
    ctx.send_event("has", {"pids": pids, "pid": os.getpid()})
    if params.get("stays"):
        time.sleep(300)
    if params.get("crashes"):
        os.abort()
    return {"pids": pids}

def sockets():
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                yield int(name)
        except OSError:
            pass

@worker.skill(executor="process")
def write_garbage(params: dict) -> dict:
    for descriptor in sockets():
        os.write(descriptor, bytes.fromhex(params["hex"]))
    time.sleep(300)

@worker.skill(executor="process")
def fall_through() -> dict:
    child = os.fork()
    if not child:
        while not os.path.exists("next"):
            time.sleep(0.01)
        return {"who": "a forked child"}
    return {"who": "the process", "pid": os.getpid()}

@worker.skill(executor="process")
def write_as_child(ctx: TaskContext) -> dict:
    from avtomatika_worker.execution.processes import wire
    duplicates = [os.dup(each) for each in sockets()]  # what hands on a descriptor is not known to fork's handlers
    child = os.fork()
    if not child:
        for each in duplicates:
            os.write(each, wire.encode("done", 1, "Succeeded", {"data": {"who": "a forked child"}}, False))
        os._exit(0)
    os.waitpid(child, 0)
    return {"who": "the process", "pid": os.getpid()}

@worker.skill(executor="process")
def who(seconds: float) -> dict:
    open("next", "w").close()
    time.sleep(seconds)
    return {"who": "the next task", "pid": os.getpid()}

@worker.skill
async def echo(params: dict) -> dict:
    return params

if __name__ == "__main__":
    worker.run()
"""


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator(poll_time=1.0, max_attempts=1) as started:
        yield started


@pytest.fixture
async def process(orchestrator, tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(PROGRAM, "utf-8")
    monkeypatch.setenv("WORKER_SKILL_PROCESSES", "1")
    monkeypatch.setenv("HEARTBEAT_INTERVAL", "1")  # which brings cancellations
    async with program(orchestrator, "app.py", cwd=tmp_path) as started:
        await orchestrator.wait_for_worker("program", timeout=20)
        yield started


async def spawned(orchestrator, **params):
    """Run the skill that starts others; return its job and what it has reported."""
    job = orchestrator.submit("spawn", params)
    await orchestrator.wait_for(lambda: job.events, 20)
    return job, job.events[0]["payload"]


@linux
async def test_sessions_of_their_own_end_with_a_killed_worker(orchestrator, process):
    _, has = await spawned(orchestrator, stays=True)
    assert not any(map(gone, has["pids"]))
    os.kill(process.pid, signal.SIGKILL)
    await until(lambda: all(map(gone, [has["pid"], *has["pids"]])))


@linux
@pytest.mark.parametrize("how", ["stays", "crashes", "killed"])
async def test_sessions_of_their_own_end_with_their_process(orchestrator, process, how):
    job, has = await spawned(orchestrator, **{how: True})
    if how == "stays":
        orchestrator.cancel(job.job_id)
    elif how == "killed":
        await job.done(10)
        os.kill(has["pid"], signal.SIGKILL)
    await until(lambda: all(map(gone, [has["pid"], *has["pids"]])))
    assert (await orchestrator.submit("who", {"seconds": 0}).done(10)).result["who"] == "the next task"


@linux
async def test_what_a_skill_has_started_ends_with_the_worker(orchestrator, process):
    job, has = await spawned(orchestrator)
    await job.done(10)
    assert not any(map(gone, has["pids"]))  # it may be meant to go on for a while
    process.terminate()
    await process.wait()
    await until(lambda: all(map(gone, has["pids"])))


@linux
@pytest.mark.parametrize("garbage", [b"\xff" * 12, b"\xff\xff\xff\xff" + b"x" * 100, b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_garbage_on_the_socket_fails_the_task_at_once(orchestrator, process, garbage):
    job = await orchestrator.submit("write_garbage", {"hex": garbage.hex()}).done(10)
    assert job.error["code"] == "TRANSIENT_ERROR"
    assert "wrote to the worker's socket" in job.error["message"]
    assert (await orchestrator.submit("who", {"seconds": 0}).done(10)).result["who"] == "the next task"


@pytest.mark.parametrize(
    "begun", [wire.HEAD.pack(wire.MARK, 1, 2**32 - 1) + b"x" * 100, b"\x93", wire.MARK + b"12345678"]
)
async def test_a_message_that_is_begun_and_not_ended_ends_its_process(begun):
    taken, problems = [], asyncio.Queue()
    ours, theirs = socket.socketpair()
    with theirs:
        channel = ParentChannel(taken.append, lambda: None, on_garbled=problems.put_nowait, stalled_after=0.1)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=ours)
        theirs.sendall(wire.encode("ready") + begun)
        problem = await asyncio.wait_for(problems.get(), 10)
    assert taken == [["ready"]]
    assert f"an incomplete message of {len(begun)} bytes" in problem
    await channel.wait_closed(10)
    assert channel.closed


async def test_a_long_message_that_comes_in_pieces_is_taken():
    taken = asyncio.Queue()
    ours, theirs = socket.socketpair()
    with theirs:
        channel = ParentChannel(taken.put_nowait, lambda: None, on_garbled=taken.put_nowait, stalled_after=0.4)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=ours)
        message = wire.encode("log", "x" * 1000)
        for start in range(0, len(message), 100):  # longer in all than one may stall
            theirs.sendall(message[start : start + 100])
            await asyncio.sleep(0.05)
        assert await asyncio.wait_for(taken.get(), 10) == ["log", "x" * 1000]
        channel.close()
        await channel.wait_closed(10)


async def test_a_forked_child_that_falls_through_answers_no_other_task(orchestrator, process):
    first = await orchestrator.submit("fall_through", {}).done(10)
    assert first.result["who"] == "the process"
    assert (await orchestrator.submit("who", {"seconds": 0.6}).done(10)).result["who"] == "the next task"


@linux
async def test_what_another_process_writes_is_dropped_and_the_process_replaced(orchestrator, process):
    first = await orchestrator.submit("write_as_child", {}).done(10)
    assert first.result["who"] == "the process"
    second = await orchestrator.submit("who", {"seconds": 0}).done(10)
    assert second.result["who"] == "the next task"
    assert second.result["pid"] != first.result["pid"]
