"""``--reload`` as processes: what an edit, a mistake in it and a signal lead to."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from avtomatika_worker.cli.watching import directories_below
from avtomatika_worker.devserver import EmbeddedOrchestrator

APP = """
import asyncio, os
from avtomatika_worker import TaskContext, Worker
worker = Worker(worker_type="test", worker_id="w1")

@worker.skill
async def version():
    return {"version": 1, "process": os.getpid()}

@worker.skill
async def slow(ctx: TaskContext):
    await ctx.send_progress(0.1, "begun")
    await asyncio.sleep(0.5)
    return {"result": "finished"}

"""

DEAF = """
    import signal, time
    signal.signal(signal.SIGTERM, lambda *_: print("heard, and ignored"))
    print("blocked")
    time.sleep(300)
"""
"""Shows each signal, and takes it from the worker."""

SLOW_TO_CANCEL = """
    try:
        await asyncio.sleep(300)
    finally:
        await asyncio.sleep(2)
"""
"""Runs still when the text about the second Ctrl+C is written."""

TERMINAL = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes standard input the terminal of this process, as a shell has it, and becomes the command."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups of POSIX")


class Reloaded:
    """``worker … --reload`` in a session of its own, its output and its tasks."""

    def __init__(self, process, url):
        self.process = process
        self.url = url
        self.lines = []

    async def wait_for(self, text):
        """Return the next line that holds ``text``."""
        async with asyncio.timeout(30):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line)
                if text in line:
                    return line
        raise AssertionError(f"it ended without {text!r}:\n{''.join(self.lines)}")

    async def ready(self):
        """Wait until the worker is registered."""
        await self.wait_for("registered with" if self.url else "Stop with Ctrl+C")

    async def end(self):
        """Return the exit code, once neither the command nor any process it made is left."""
        async with asyncio.timeout(30):
            self.lines.append((await self.process.stdout.read()).decode())
            code = await self.process.wait()
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        return code

    async def left(self):
        """Wait until no process is left that writes its output: an orphan is reaped by somebody else."""
        async with asyncio.timeout(30):
            self.lines.append((await self.process.stdout.read()).decode())

    @property
    def output(self):
        return "".join(self.lines)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "my_app.py").write_text(APP, "utf-8")
    return tmp_path


def edit(project, old, new):
    path = project / "my_app.py"
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


@asynccontextmanager
async def reloaded(project, verb, *, url="", prefix=(), stdin=asyncio.subprocess.DEVNULL) -> AsyncIterator[Reloaded]:
    """Start ``worker run``, for the orchestrator at ``url``, or ``worker dev`` with one of its own."""
    options = ["--no-health-check"] if verb == "run" else ["--port", "0"]
    process = await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, "-u", "-m", "avtomatika_worker.cli"),
        *(verb, "--app", "my_app:worker", "--reload", *options),
        cwd=project,
        env={"PATH": "", "ORCHESTRATOR_URL": url, "WORKER_TOKEN": "dev-token", "PYTHONUNBUFFERED": "1"},
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield Reloaded(process, url)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator(poll_time=1.0) as orchestrator:
        yield orchestrator


async def run_version(orchestrator):
    job = orchestrator.submit("version")
    await job.done()
    return job.result


async def test_run_serves_the_next_task_with_the_edited_code(project, orchestrator):
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.ready()
        before = await run_version(orchestrator)
        assert before["version"] == 1
        edit(project, '"version": 1', '"version": 2')
        await worker.wait_for("my_app.py changed: restarting")
        await worker.ready()
        after = await run_version(orchestrator)
        assert after["version"] == 2
        with pytest.raises(ProcessLookupError):
            os.kill(before["process"], 0)
        worker.process.terminate()
        assert await worker.end() == 0


async def test_dev_serves_the_next_task_with_the_edited_code(project):
    async with reloaded(project, "dev") as worker, aiohttp.ClientSession() as session:
        url = (await worker.wait_for("Orchestrator for development at")).split()[4]
        await worker.ready()

        async def run_task():
            async with session.post(f"{url}/api/jobs", json={"skill": "version"}) as answer:
                job = f"{url}{answer.headers['Location']}"
            async with session.get(job, params={"wait": "10"}) as answer:
                return (await answer.json())["result"]["version"]

        assert await run_task() == 1
        for version in (2, 3):
            edit(project, f'"version": {version - 1}', f'"version": {version}')
            await worker.wait_for("my_app.py changed: restarting")
            await worker.wait_for("  Skills: version")
            assert await run_task() == version  # at the same address
        worker.process.send_signal(signal.SIGINT)
        assert await worker.end() == 0
        assert worker.output.count("Orchestrator for development at") == 1


async def test_dev_keeps_its_orchestrator_and_tasks_while_the_code_is_broken_and_fixed(project):
    async with reloaded(project, "dev") as worker, aiohttp.ClientSession() as session:
        url = (await worker.wait_for("Orchestrator for development at")).split()[4]
        await worker.ready()
        async with session.post(f"{url}/api/jobs", json={"skill": "version"}) as answer:
            done = f"{url}{answer.headers['Location']}"
        async with session.get(done, params={"wait": "10"}) as answer:
            assert (await answer.json())["state"] == "finished"
        async with session.get(f"{url}/console/api/stream") as stream:
            edit(project, "import asyncio, os", "import asyncio, os\nraise RuntimeError('<b>broken</b>')")
            problem = await changed(stream, "problem")
            assert "RuntimeError: <b>broken</b>" in problem
            assert "my_app.py" in problem
            assert "importlib" not in problem
            async with session.post(f"{url}/api/jobs", json={"skill": "version"}) as answer:
                waiting = f"{url}{answer.headers['Location']}"
            edit(project, "raise RuntimeError('<b>broken</b>')", "")
            assert await changed(stream, "problem") is None
        for job in (done, waiting):
            async with session.get(job, params={"wait": "10"}) as answer:
                assert (await answer.json())["state"] == "finished"
        async with session.get(f"{url}/console/api/jobs/{waiting.rpartition('/')[2]}") as answer:
            assert any("skill version" in line["text"] for line in (await answer.json())["logs"])
        worker.process.terminate()
        assert await worker.end() == 0


async def changed(stream, topic):
    """Return the next value of a topic in the console's stream."""
    async with asyncio.timeout(30):
        async for line in stream.content:
            name, _, data = line.decode().partition(": ")
            if name == "data" and topic in (news := json.loads(data)):
                return news[topic]
    raise AssertionError(f"the stream ended without {topic}")


async def test_a_syntax_error_is_reported_and_fixing_it_brings_the_worker_back(project, orchestrator):
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.ready()
        edit(project, '"version": 1,', '"version": 2 2')
        line = await worker.wait_for("worker: --app: importing my_app failed: SyntaxError")
        assert "my_app.py, line 8" in line
        await worker.wait_for("ended with exit code 2; it restarts when a Python file changes")
        edit(project, '"version": 2 2', '"version": 3,')
        await worker.ready()
        assert (await run_version(orchestrator))["version"] == 3
        assert "avtomatika_worker/cli" not in worker.output, "the traceback holds our own frames"
        worker.process.terminate()
        assert await worker.end() == 0


async def test_a_signal_while_the_app_is_broken_gives_the_exit_code_of_that(project, orchestrator):
    edit(project, "import asyncio", "import no_such_module")
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.wait_for("ended with exit code 2")
        worker.process.terminate()
        assert await worker.end() == 2


async def test_a_running_task_finishes_before_the_edited_code_starts(project, orchestrator):
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.ready()
        job = await slow_task(orchestrator)
        edit(project, '"version": 1', '"version": 2')
        await worker.wait_for("my_app.py changed: restarting")
        await worker.ready()
        assert job.result == {"result": "finished"}
        worker.process.terminate()
        assert await worker.end() == 0


@pytest.mark.parametrize("verb", ["run", "dev"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_everything(project, orchestrator, verb, number):
    async with reloaded(project, verb, url=orchestrator.url if verb == "run" else "") as worker:
        await worker.ready()
        worker.process.send_signal(number)
        assert await worker.end() == 0
        assert "Traceback" not in worker.output
        assert "Aborted" not in worker.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_running_task_finish(project, orchestrator, number):
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.ready()
        job = await slow_task(orchestrator)
        worker.process.send_signal(number)
        assert await worker.end() == 0
        assert job.result == {"result": "finished"}


async def test_ctrl_c_at_a_terminal_lets_a_running_task_finish(project, orchestrator):
    # The terminal sends SIGINT to both processes; passed on, it would be the second one, which cuts the shutdown short.
    terminal, inner = os.openpty()
    prefix = (sys.executable, "-c", TERMINAL)
    try:
        async with reloaded(project, "run", url=orchestrator.url, prefix=prefix, stdin=inner) as worker:
            await worker.ready()
            job = await slow_task(orchestrator)
            os.write(terminal, b"\x03")
            assert await worker.end() == 0
            assert job.result == {"result": "finished"}
    finally:
        os.close(inner)
        os.close(terminal)


async def test_ctrl_c_under_dev_says_what_it_waits_for_and_how_to_force_it(project):
    edit(project, "    await asyncio.sleep(0.5)", SLOW_TO_CANCEL)
    terminal, inner = os.openpty()
    prefix = (sys.executable, "-c", TERMINAL)
    try:
        async with reloaded(project, "dev", prefix=prefix, stdin=inner) as worker:
            await worker.ready()
            url = next(line.split()[-1] for line in worker.lines if "Console:" in line).removesuffix("/console/")
            async with aiohttp.ClientSession() as session:
                async with session.post(f"{url}/api/jobs", json={"skill": "slow", "params": {}}) as answer:
                    job_id = (await answer.json())["job_id"]
                async with session.get(f"{url}/console/api/stream") as stream:
                    while not any(each["attempts"] for each in await changed(stream, "jobs")):
                        pass
            os.write(terminal, b"\x03")
            awaited = f"Waiting at most 30 s for 1 running task: {job_id[:4]} slow. Ctrl+C again cancels."
            for text in (awaited, "shutting down"):  # one is of either process
                if text not in worker.output:
                    await worker.wait_for(text)
            os.write(terminal, b"\x03")
            await worker.wait_for(
                f"Cancelling 1 running task: {job_id[:4]} slow. Ctrl+C again ends the program at once."
            )
            assert await worker.end() in {3, 4}  # 4: the result of the task that was cut off did not get out
    finally:
        os.close(inner)
        os.close(terminal)


async def test_a_second_signal_cuts_the_shutdown_short(project, orchestrator):
    edit(project, "asyncio.sleep(0.5)", "asyncio.sleep(300)")
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.ready()
        await slow_task(orchestrator)
        worker.process.terminate()
        await worker.wait_for("shutting down")
        worker.process.terminate()
        assert await worker.end() == 3


async def test_a_third_signal_kills_a_worker_that_ignores_the_others(project, orchestrator):
    edit(project, "await asyncio.sleep(0.5)", DEAF)
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.ready()
        orchestrator.submit("slow")
        await worker.wait_for("blocked")
        for _ in range(2):
            worker.process.terminate()
            await worker.wait_for("heard")  # two that come at once are one
        worker.process.terminate()
        assert await worker.end() == 128 + signal.SIGKILL


async def slow_task(orchestrator):
    """Submit a task, and return its job once it runs."""
    job = orchestrator.submit("slow")
    await orchestrator.wait_for(lambda: job.progress.message == "begun")
    return job


# ------------------------------------------------------------------------------------------- what is watched


def without_privileges():
    """Return what to put before a command so that a directory without permissions cannot be read, as root neither."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root reads every directory, and there is no setpriv")
    return (setpriv, "--bounding-set=-dac_override,-dac_read_search")


async def test_what_cannot_be_watched_is_left_out(project, orchestrator):
    closed = project / "closed"
    closed.mkdir()
    (project / "dangling").symlink_to(project / "nowhere")
    (project / "back").symlink_to(project)
    closed.chmod(0)
    try:
        async with reloaded(project, "run", url=orchestrator.url, prefix=without_privileges()) as worker:
            await worker.ready()
            edit(project, '"version": 1', '"version": 2')
            await worker.wait_for("my_app.py changed: restarting")
            await worker.ready()
            assert (await run_version(orchestrator))["version"] == 2
            worker.process.terminate()
            assert await worker.end() == 0
    finally:
        closed.chmod(0o700)


async def test_directories_come_and_go(project, orchestrator):
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.ready()
        new = project / "package"
        new.mkdir()
        (new / "inner.py").write_text("N = 1", "utf-8")
        await worker.wait_for("inner.py changed: restarting")
        await worker.ready()
        shutil.rmtree(new)
        await worker.wait_for("changed: restarting")
        await worker.ready()
        edit(project, '"version": 1', '"version": 2')
        await worker.wait_for("my_app.py changed: restarting")
        await worker.ready()
        worker.process.terminate()
        assert await worker.end() == 0


def test_trees_of_other_peoples_code_are_not_watched(tmp_path):
    for name in ("src/app", ".venv/lib", "node_modules/a", "environment/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "environment" / "pyvenv.cfg").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert directories_below(str(tmp_path)) == [str(tmp_path), str(tmp_path / "src"), str(tmp_path / "src" / "app")]


# ------------------------------------------------------------------------------------------- its own end


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT])
async def test_the_worker_does_not_outlive_it(project, orchestrator, number):
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.ready()
        worker.process.send_signal(number)
        await worker.left()
        assert "shutting down" in worker.output


async def test_a_worker_that_imports_for_long_does_not_outlive_it(project, orchestrator):
    edit(project, "import asyncio, os", "import asyncio, os, time; print('importing'); time.sleep(300)")
    async with reloaded(project, "run", url=orchestrator.url) as worker:
        await worker.wait_for("importing")
        worker.process.kill()
        await worker.left()


async def test_without_its_package_the_extra_that_has_it_is_named(tmp_path):
    (tmp_path / "app.py").write_text(APP, "utf-8")
    program = "import sys; sys.modules['watchfiles'] = None; from avtomatika_worker.cli.__main__ import start; start()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "dev", "--app", "app:worker", "--reload"),
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    _, problem = await process.communicate()
    assert process.returncode == 2
    assert "install the extra [reload]" in " ".join(problem.decode().split())
