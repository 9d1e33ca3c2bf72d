"""Processes for skills of whole programs: how they start, and that none is left behind."""

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys

import psutil
import pytest

from avtomatika_worker import ProcessStartError, SkillDefinitionError, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.testing import WorkerHarness
from processes.conftest import gone, until

PROGRAM = """\
import os, sys
from dataclasses import dataclass
from avtomatika_worker import TaskContext, Worker

worker = Worker()
print("imported as", __name__, flush=True)

@dataclass
class Numbers:
    numbers: list[int]

@worker.skill(executor="process")
def total(params: Numbers) -> dict:
    return {"total": sum(params.numbers), "pid": os.getpid(), "argv": sys.argv}

@worker.skill(executor="process")
def spin(ctx: TaskContext) -> None:
    import ctypes
    ctx.send_event("spinning", {"pid": os.getpid()})
    ctypes.PyDLL(None).usleep(ctypes.c_uint(60_000_000))

if __name__ == "__main__":
    worker.run()
"""


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator(poll_time=1.0, max_attempts=1) as started:
        yield started


@contextlib.asynccontextmanager
async def program(orchestrator, *command, cwd):
    """Run a worker's program beside an orchestrator; what is left of it at the end is killed."""
    environment = {
        **os.environ,
        "ORCHESTRATOR_URL": orchestrator.url,
        "WORKER_TOKEN": orchestrator.token,
        "WORKER_ID": "program",
        "MAX_CONCURRENT_TASKS": "2",
        "WORKER_PORT": "0",
        "WORKER_RESULT_DURABILITY": "off",
        "WORKER_SHUTDOWN_TIMEOUT": "0.2",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=cwd,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def children(pid):
    """Return the skill processes of a worker: the children of their guards."""
    return [each.pid for guard in psutil.Process(pid).children() for each in guard.children()]


async def test_skills_of_the_main_module_run_and_its_end_is_not_run_twice(orchestrator, tmp_path):
    (tmp_path / "my_worker.py").write_text(PROGRAM, "utf-8")
    async with program(orchestrator, "my_worker.py", cwd=tmp_path) as process:
        await orchestrator.wait_for_worker("program", timeout=20)
        job = await orchestrator.submit("total", {"numbers": [1, 2]}).done(20)
        assert (job.result["total"], job.result["argv"][1:]) == (3, [])
        assert children(process.pid) == [job.result["pid"]]
        process.send_signal(signal.SIGTERM)
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "imported as __main__" in output.decode()
    assert "imported as __mp_main__" in output.decode()
    assert gone(job.result["pid"])


async def test_worker_run_with_app_imports_the_module_by_its_name(orchestrator, tmp_path):
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "main.py").write_text(PROGRAM, "utf-8")
    async with program(orchestrator, "-m", "avtomatika_worker.cli", "run", "--app", "shop.main:worker", cwd=tmp_path):
        job = await orchestrator.submit("total", {"numbers": [4]}).done(20)
        assert job.result["total"] == 4


async def test_a_worker_that_is_killed_leaves_no_process_even_one_that_holds_the_gil(orchestrator, tmp_path):
    (tmp_path / "my_worker.py").write_text(PROGRAM, "utf-8")
    async with program(orchestrator, "my_worker.py", cwd=tmp_path) as process:
        job = orchestrator.submit("spin", {})
        await orchestrator.wait_for(lambda: job.events, 20)
        pid = job.events[0]["payload"]["pid"]
        pids = children(process.pid)
        assert pid in pids
        process.kill()
        await until(lambda: all(map(gone, pids)))


async def test_signals_to_everybody_leave_the_decision_to_the_worker(orchestrator, tmp_path):
    (tmp_path / "my_worker.py").write_text(PROGRAM, "utf-8")
    async with program(orchestrator, "my_worker.py", cwd=tmp_path) as process:
        await orchestrator.wait_for_worker("program", timeout=20)
        (pid,) = children(process.pid)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
        job = await orchestrator.submit("total", {"numbers": [4]}).done(20)
        assert job.result["pid"] == pid


async def test_a_program_that_runs_its_worker_without_asking_for_its_name_gets_an_explanation(orchestrator, tmp_path):
    text = PROGRAM.replace('if __name__ == "__main__":\n    worker.run()', "worker.run()")
    (tmp_path / "my_worker.py").write_text(text, "utf-8")
    async with program(orchestrator, "my_worker.py", cwd=tmp_path) as process:
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    explained = [line for line in output.decode().splitlines() if line.startswith("worker: ")]
    assert len(explained) == 1
    assert 'put calls such as worker.run() under: if __name__ == "__main__"' in explained[0]


async def test_a_resource_that_cannot_be_made_is_exit_code_2_and_one_line(orchestrator, tmp_path):
    (tmp_path / "broken.py").write_text(
        "from avtomatika_worker import Worker\nworker = Worker()\nclass Model: ...\n"
        "@worker.resource\ndef load() -> Model:\n    raise OSError('weights.bin is not there')\n"
        "@worker.skill\nasync def use(model: Model) -> None: ...\n",
        "utf-8",
    )
    command = ("-m", "avtomatika_worker.cli", "run", "--app", "broken:worker")
    async with program(orchestrator, *command, cwd=tmp_path) as process:
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert "worker: resource 'load': cannot be created: OSError: weights.bin is not there\n" in output.decode()
    assert 'broken.py", line 6, in load' in output.decode()
    assert not orchestrator.workers


# ---------------------------------------------------------------------------------------------- what cannot start


def undecorated(n: int = 1) -> dict:
    return {"n": n}


def doubled(func):
    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        return func(*args, **kwargs)

    return wrapper


blocked = Worker()


@doubled
@blocked.skill(executor="process")
def decorated(n: int = 1) -> dict:
    return {"n": n}


def test_what_no_process_could_import_is_refused_before_the_start():
    def local(n: int = 1) -> dict:
        return {"n": n}

    for func, problem in (
        (local, "local is defined inside a function; move it to the top level of a module"),
        (lambda n=1: {"n": n}, "is a lambda"),
    ):
        worker = Worker()
        worker.skill("it", executor="process")(func)
        with pytest.raises(SkillDefinitionError, match="executor='process' needs an importable function") as caught:
            worker.load_skills(worker.load_settings({}))
        assert problem in str(caught.value)
    with pytest.raises(SkillDefinitionError, match=r"decorated now refers to something else; a decorator above"):
        blocked.load_skills(blocked.load_settings({}))


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "2"])
def test_max_tasks_per_child_is_a_count_and_for_processes(most):
    with pytest.raises(SkillDefinitionError, match="max_tasks_per_child must be a positive integer"):
        Worker().skill(executor="process", max_tasks_per_child=most)(undecorated)
    with pytest.raises(SkillDefinitionError, match="max_tasks_per_child is for executor='process'"):
        Worker().skill(max_tasks_per_child=2)(undecorated)


async def test_a_module_that_cannot_be_imported_in_the_process_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "only_once.py"
    head = "from avtomatika_worker import SkillBlueprint\nbp = SkillBlueprint()\n"
    body = "@bp.skill(executor='process')\ndef once() -> None: ...\n"
    module.write_text(head + body, "utf-8")
    import only_once

    module.write_text(head + "import not_installed\n" + body, "utf-8")
    worker = Worker()
    worker.include_blueprint(only_once.bp)
    async with WorkerHarness(worker) as h:
        with pytest.raises(
            SkillDefinitionError, match="'once': cannot be imported in a skill process: ModuleNotFoundE"
        ):
            await h.run("once")
    (failed,) = [each for each in caplog.records if getattr(each, "action", "") == "skill_process_import_failed"]
    assert "import not_installed" in failed.exc_text
    module.write_text("import os\nos._exit(7)\n", "utf-8")
    async with WorkerHarness(worker) as h:
        with pytest.raises(ProcessStartError, match="ended before it was ready: exit code 7"):
            await h.run("once")


async def test_a_process_that_can_no_longer_start_fails_tasks_that_are_tried_again(tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "for_a_while.py"
    text = (
        "import os\nfrom avtomatika_worker import SkillBlueprint\nbp = SkillBlueprint()\n"
        "@bp.skill(executor='process')\ndef end() -> None:\n    os._exit(1)\n"
    )
    module.write_text(text, "utf-8")
    import for_a_while

    worker = Worker()
    worker.include_blueprint(for_a_while.bp)
    async with WorkerHarness(worker) as h:
        await worker.prestart()
        module.write_text("raise OSError('the disk is gone')\n", "utf-8")
        assert (await h.run("end")).error.code == "TRANSIENT_ERROR"
        error = (await h.run("end")).error
        assert error.code == "INTERNAL_ERROR"
        assert "no process for the skill: skill 'end': cannot be imported in a skill process: OSError" in error.message
        module.write_text(text, "utf-8")
        assert (await h.run("end")).error.code == "TRANSIENT_ERROR"  # it heals by itself


async def test_a_shutdown_while_a_process_starts_waits_for_nothing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "slow_to_import.py"
    text = (
        "from avtomatika_worker import SkillBlueprint\nbp = SkillBlueprint()\n"
        "@bp.skill(executor='process')\ndef never() -> None: ...\n"
    )
    module.write_text(text, "utf-8")
    import slow_to_import

    mark = tmp_path / "pid"
    module.write_text(
        f"import os, pathlib, time\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n", "utf-8"
    )
    worker = Worker()
    worker.include_blueprint(slow_to_import.bp)
    settings = worker.load_settings({"ORCHESTRATOR_URL": "http://127.0.0.1:9", "WORKER_RESULT_DURABILITY": "off"})
    main = asyncio.create_task(worker.main(settings, health_check=False))
    await until(lambda: mark.exists() and mark.read_text("utf-8"))
    worker.request_shutdown()
    await asyncio.wait_for(main, 5)
    assert gone(int(mark.read_text("utf-8")))


@pytest.mark.parametrize("own_thread", [False, True])
async def test_a_harness_starts_a_process_when_a_task_needs_one(worker, own_thread):
    def processes():
        return {each.pid for each in psutil.Process().children(recursive=True)}

    before = processes()
    async with WorkerHarness(worker, own_thread=own_thread) as h:
        assert processes() == before
        pid = (await h.run("add_up", {"numbers": [1]})).data["pid"]
        assert processes() - before == {pid, psutil.Process(pid).ppid()}  # with its guard


SURROUNDED = """
import asyncio, atexit, logging.config, os
from collections.abc import AsyncIterator
from pathlib import Path
from avtomatika_worker import SkillBlueprint
logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}})
bp = SkillBlueprint()

class Beat:
    ticks = 0

@bp.resource
async def beat() -> AsyncIterator[Beat]:
    made = Beat()
    async def tick() -> None:
        while True:
            await asyncio.sleep(0.01)
            made.ticks += 1
            Path(os.environ["SURROUNDED"], "ticks").write_text(str(made.ticks))
    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(tick())
        yield made
        ticking.cancel()
    Path(os.environ["SURROUNDED"], "closed").touch()

@bp.skill(executor="process")
def ticks(beat: Beat) -> int:
    return beat.ticks

@bp.skill(executor="process")
def loud() -> int:
    raise ValueError("boom")

def leave() -> None:
    if "SURROUNDED" in os.environ:
        Path(os.environ["SURROUNDED"], f"left-{os.getpid()}").touch()

atexit.register(leave)
"""


@pytest.fixture
def surrounded(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SURROUNDED", str(tmp_path))
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    (tmp_path / "surrounded.py").write_text(SURROUNDED, "utf-8")
    handlers, level = list(logging.root.handlers), logging.root.level
    import surrounded

    logging.root.handlers[:], logging.root.level = handlers, level
    for each in loggers:
        each.disabled = False
    worker = Worker()
    worker.include_blueprint(surrounded.bp)
    yield worker
    sys.modules.pop("surrounded")


async def test_background_work_of_a_resource_goes_on_between_the_tasks_of_a_process(surrounded, tmp_path):
    async with WorkerHarness(surrounded) as h:
        before = (await h.run("ticks")).data["result"]
        ticks = tmp_path / "ticks"
        await until(lambda: ticks.exists() and int(ticks.read_text() or 0) > before + 10)
        assert (await h.run("ticks")).data["result"] > before + 10


async def test_a_process_that_ends_in_order_closes_its_resources_and_runs_what_atexit_knows(surrounded, tmp_path):
    async with WorkerHarness(surrounded) as h:
        await h.run("ticks")
    assert (tmp_path / "closed").exists()
    (left,) = tmp_path.glob("left-*")
    assert left.name != f"left-{os.getpid()}"


async def test_a_dict_config_in_the_program_silences_no_process(surrounded, caplog):
    async with WorkerHarness(surrounded) as h:
        await h.run("loud")
    assert any("boom" in (each.exc_text or "") for each in caplog.records)
