"""``worker run --workers N`` as a process: what it writes, what it answers, which processes it has."""

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager, suppress

import aiohttp
import psutil

APP = """
import asyncio, os, subprocess, time
from avtomatika_worker import TaskContext, Worker
worker = Worker(worker_type="test")

@worker.skill
async def nap(seconds: float = 0, *, ctx: TaskContext):
    await ctx.send_progress(0.1, str(os.getpid()))
    await asyncio.sleep(seconds)
    return {"pid": os.getpid()}

@worker.skill
async def block(seconds: float):
    time.sleep(seconds)

@worker.skill
async def spawn():
    return {"pid": os.getpid(), "child": subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL).pid}
"""

HOLDS_UP_EVERY_THREAD = "import re; re.match('(a+)+$', 'a' * 60 + 'b')"
HOLDS_UP_ONE = "import time; time.sleep(300)"


class FleetProcess:
    """The fleet, in a session of its own."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.port = None
        self.seen = {}

    async def line_with(self, text):
        """Return the next line that holds ``text``."""
        async with asyncio.timeout(30):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line)
                self._note(line)
                if text in line:
                    return line
        raise AssertionError(f"it ended without {text!r}:\n{self.output}")

    async def record(self, action):
        """Return the next record with this ``action``."""
        return json.loads(await self.line_with(f'"action": "{action}"'))

    async def up(self, workers):
        """Wait until so many members are registered, and remember their processes; return those."""
        async with asyncio.timeout(30):
            while True:
                if self.port is None:
                    await self.line_with("health server on port")
                health = await self.health()
                ready = {
                    each["worker_id"]: each["pid"]
                    for each in health["processes"]
                    if (each["health"] or {}).get("ready")
                }
                if len(ready) == workers:
                    self.seen |= dict.fromkeys(ready.values())
                    return ready
                await asyncio.sleep(0.05)

    async def started(self, workers):
        """Wait until so many members' processes are there, whatever they do, and remember them."""
        parent = psutil.Process(self.process.pid)
        async with asyncio.timeout(30):
            while len(children := [each.pid for each in parent.children()]) < workers:  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.02)
        self.seen |= dict.fromkeys(children)

    async def get(self, path):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}") as response,
        ):
            return response.status, await response.text()

    async def health(self):
        return json.loads((await self.get("/health"))[1])

    def send(self, number):
        self.process.send_signal(number)

    async def end(self):
        """Return the exit code, once neither it nor any process it had is left."""
        async with asyncio.timeout(30):
            rest = (await self.process.stdout.read()).decode()  # ends when the last of them does
            self.lines += rest.splitlines(keepends=True)
            code = await self.process.wait()
            while self.alive():  # noqa: ASYNC110 - a process closes its output a moment before it is gone
                await asyncio.sleep(0.02)
        return code

    def alive(self):
        """Return the members seen so far that still run."""
        return [pid for pid in self.seen if runs(pid)]

    def _note(self, line):
        if found := re.search(r"health server on port (\d+)", line):
            self.port = int(found[1])
        if found := re.search(r"runs as process (\d+)", line):
            self.seen[int(found[1])] = None

    @property
    def output(self):
        return "".join(self.lines)


def runs(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@asynccontextmanager
async def fleet(directory, orchestrator, *options, app=APP, prefix=(), stdin=asyncio.subprocess.DEVNULL, **environment):
    """Start ``worker run`` in ``directory``."""
    (directory / "my_app.py").write_text(app, "utf-8")
    process = await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, "-B", "-m", "avtomatika_worker.cli", "run", "--app", "my_app:worker", *options),
        cwd=directory,
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONDONTWRITEBYTECODE": "1",
            "WORKER_ID": "w",
            "WORKER_TOKEN": orchestrator.token if orchestrator else "dev-token",
            "ORCHESTRATOR_URL": orchestrator.url if orchestrator else "http://127.0.0.1:9",
            "WORKER_STATE_DIR": str(directory / "state"),
            "WORKER_PORT": "0",
            "WORKER_HEALTH_HOST": "127.0.0.1",
            "LOG_FORMAT": "json",
            "REGISTRATION_RETRY_MAX_DELAY": "1",
            **environment,
        },
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    started = FleetProcess(process)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        for pid in started.alive():
            os.kill(pid, signal.SIGKILL)
        await process.communicate()
