"""A worker in a process of its own with a skill that holds the GIL, seen from outside."""

import asyncio
import contextlib
import os
import sys

import aiohttp
import psutil

from cluster.processes import ManagedProcess, free_port

APP = """
import ctypes, os, time
from avtomatika_worker import TaskContext, Worker

worker = Worker()
gate = os.open("gate", os.O_RDWR)
read = ctypes.PyDLL(None).read  # a PyDLL keeps the GIL during its calls

@worker.skill
def hold(ctx: TaskContext):
    time.sleep(0.6)  # the heartbeats list the job by then
    read(gate, ctypes.create_string_buffer(1), 1)
    return {"held": True}

@worker.skill
def hold_and_wait(ctx: TaskContext):
    time.sleep(0.6)
    read(gate, ctypes.create_string_buffer(1), 1)
    while True:
        ctx.raise_if_cancelled()
        time.sleep(0.02)
"""


class HeldWorker:
    """The process. ``process`` is that of its worker."""

    def __init__(self, orchestrator, process, port, gate):
        self.orchestrator = orchestrator
        self._gate = gate
        self.process = process
        self._port = port
        self.standbys = []

    def beats(self, *, stood_in=None):
        """Return the heartbeats, or those alone that the heartbeat process (did not) send."""
        beats = [each for each in self.orchestrator.requests if each.call == "heartbeat"]
        return [each for each in beats if stood_in is None or _stood_in(each) is stood_in]

    def children(self):
        """Return the pids of the processes below the worker's that are heartbeat processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children(recursive=True)
            pids = [each.pid for each in found if any("heartbeat_program" in word for word in _command(each))]
            self.standbys += [pid for pid in pids if pid not in self.standbys]
            return pids
        return []

    async def standby(self, *, besides=()):
        """Wait until the heartbeat process is up, and return its pid."""
        pid = await until(lambda: next((pid for pid in self.children() if pid not in besides), None))
        await until(lambda: f"heartbeat process {pid} stands by" in self.process.output())
        return pid

    async def get(self, path):
        """Return the status and the body of an answer of the health server."""
        url = f"http://127.0.0.1:{self._port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            return reply.status, await reply.text()

    async def held(self):
        """Wait until the worker says of itself that it is held up."""
        body = ""
        async with asyncio.timeout(30):
            while "held up" not in body:
                # A request that the worker has accepted in that very moment waits with it.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2):
                        body = (await self.get("/ready"))[1]
                await asyncio.sleep(0.05)

    def release(self):
        """Let one skill go on that holds the GIL, or will."""
        os.write(self._gate, b".")


@contextlib.asynccontextmanager
async def held_worker(orchestrator, directory, *arguments, **variables):
    """Run the worker until the block ends; then neither it nor its heartbeat process is left."""
    (directory / "app.py").write_text(APP, "utf-8")
    os.mkfifo(directory / "gate")
    gate = os.open(directory / "gate", os.O_RDWR)
    port = free_port()
    environment = {
        "WORKER_ID": "w1",
        "WORKER_TOKEN": orchestrator.token or "",
        "ORCHESTRATOR_URL": orchestrator.url,
        "WORKER_STATE_DIR": str(directory / "state"),
        "TASK_FILES_DIR": str(directory / "files"),
        "WORKER_HEALTH_HOST": "127.0.0.1",
        "WORKER_PORT": str(port),
        "HEARTBEAT_INTERVAL": "0.5",
        "WORKER_HEARTBEAT_PROCESS": "true",
        "REGISTRATION_RETRY_INITIAL_DELAY": "0.05",
        **variables,
    }
    command = [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "app:worker", *arguments]
    process = ManagedProcess("worker", command, env=environment, cwd=directory, own_session=True)
    worker = HeldWorker(orchestrator, process, port, gate)
    try:
        if not arguments:
            await orchestrator.wait_for_worker("w1", timeout=30)
        worker.children()
        yield worker
    finally:
        worker.children()
        worker.release()
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 20.0)
        finally:
            process.kill()
            os.close(gate)
        await until(lambda: not any(runs(pid) for pid in worker.standbys))


async def until(condition, timeout=20.0):
    """Poll the state of another process, which sends no notice; return what ``condition`` returns."""
    async with asyncio.timeout(timeout):
        while not (found := condition()):  # noqa: ASYNC110 - there is no notice
            await asyncio.sleep(0.02)
        return found


def runs(pid):
    """Whether a process has not ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _stood_in(call):
    return "(heartbeat process)" in {name.lower(): value for name, value in call.headers.items()}["user-agent"]


def _command(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []
