"""Whatever a skill raises or does to its event loop is its own task's end: the worker and the other tasks go on."""

import asyncio
import logging
import os
import signal
import sys
import threading

import pytest

from avtomatika_worker import SkillBlueprint, TaskContext, Worker
from avtomatika_worker.execution.containment import contained_loop, run_to_end
from avtomatika_worker.observability.contained import contain_handlers
from avtomatika_worker.observability.logging import TracebackLogger
from avtomatika_worker.testing import WorkerHarness


class Odd(BaseException):
    """Nobody expects it."""


KINDS = {
    "GeneratorExit": GeneratorExit,
    "SystemExit": lambda: SystemExit(7),
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "Odd": Odd,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError("x")]),
}


skills = SkillBlueprint("contained")


@skills.skill
async def raise_in_coroutine(params: dict):
    raise KINDS[params["kind"]]()


@skills.skill
def raise_in_thread(params: dict):
    raise KINDS[params["kind"]]()


@skills.skill
async def raise_in_helper(params: dict):
    async def helper():
        raise KINDS[params["kind"]]()

    await asyncio.create_task(helper())


@skills.skill
async def leave_helper_behind(params: dict):
    async def helper():
        raise KINDS[params["kind"]]()

    helping = asyncio.create_task(helper())
    await asyncio.wait({helping})
    return {"helper": type(helping.exception()).__name__}


@skills.skill
async def raise_in_callback():
    asyncio.get_running_loop().call_soon(sys.exit, 5)
    await asyncio.sleep(0.01)
    return {"went": "on"}


@skills.skill
async def cancel_everything():
    refused = [each.cancel() for each in asyncio.all_tasks() if each is not asyncio.current_task()]
    await asyncio.sleep(0.01)
    return {"cancelled": sum(refused), "asked": len(refused)}


@skills.skill
async def cancel_own():
    own = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    own.cancel()
    await asyncio.wait({own})
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    except TimeoutError:
        return {"own": own.cancelled(), "timeout": True}


@skills.skill
async def switch(params: dict):
    loop = asyncio.get_running_loop()
    arguments = {"set_task_factory": [None], "set_exception_handler": [None], "set_default_executor": [None]}
    arguments["add_signal_handler"] = [signal.SIGTERM, print]
    getattr(loop, params["name"])(*arguments.get(params["name"], []))


go_on = threading.Event()
"""Ends what waits."""


@skills.skill(events={"waits": {"type": "object"}})
async def wait(ctx: TaskContext):
    ctx.send_event("waits", {})
    while not go_on.is_set():  # noqa: ASYNC110 - set in another thread
        await asyncio.sleep(0.01)
    return {"waited": True}


@skills.skill
async def echo(params: dict):
    return params


@pytest.fixture
def worker():
    made = Worker(worker_type="test")
    made.include_blueprint(skills)
    return made


@pytest.fixture
async def h(worker):
    go_on.clear()
    async with WorkerHarness(worker, own_thread=True) as started:
        yield started


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skill", ["raise_in_coroutine", "raise_in_thread", "raise_in_helper"])
async def test_what_a_skill_raises_fails_its_task_and_nothing_else(h, skill, kind):
    other = h.submit("wait", {})
    await other.wait_for_event("waits")
    result = await h.run(skill, {"kind": kind})
    assert result.error.code == "TRANSIENT_ERROR"
    go_on.set()
    assert (await other.result()).data == {"waited": True}
    assert (await h.run("echo", {"after": kind})).data == {"after": kind}


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "Odd"])
async def test_a_helper_that_raises_ends_alone(h, kind):
    assert (await h.run("leave_helper_behind", {"kind": kind})).data == {"helper": kind}
    assert (await h.run("echo", {"n": 1})).data == {"n": 1}


async def test_an_exit_in_a_callback_leaves_the_loop_running(h):
    assert (await h.run("raise_in_callback")).data == {"went": "on"}
    assert (await h.run("echo", {"n": 1})).data == {"n": 1}


async def test_a_skill_cancels_only_what_it_has_started(h):
    other = h.submit("wait", {})
    await other.wait_for_event("waits")
    result = await h.run("cancel_everything")
    assert result.data["cancelled"] == 0
    assert result.data["asked"] > 3
    go_on.set()
    assert (await other.result()).data == {"waited": True}
    assert (await h.run("cancel_own")).data == {"own": True, "timeout": True}


@pytest.mark.parametrize(
    "name",
    [
        "stop",
        "close",
        "set_task_factory",
        "set_exception_handler",
        "set_default_executor",
        "run_forever",
        "add_signal_handler",
    ],
)
async def test_the_loop_s_own_switches_refuse_a_skill(h, name):
    result = await h.run("switch", {"name": name})
    assert "a skill must not call" in result.error.message
    assert name in result.error.message
    assert (await h.run("echo", {"n": 1})).data == {"n": 1}


@pytest.mark.parametrize("raised", [ValueError, SystemExit, Odd])
def test_an_error_of_a_log_handler_does_not_reach_the_caller_and_other_handlers_get_the_record(raised, capsys):
    class Broken(logging.Handler):
        def emit(self, record):
            raise raised("oh")

    class Sound(logging.Handler):
        def __init__(self):
            super().__init__()
            self.seen = []

        def emit(self, record):
            self.seen.append(record.getMessage())

    broken, sound = Broken(), Sound()
    contain_handlers()
    logging.root.addHandler(broken)
    logging.root.addHandler(sound)
    try:
        for text in ("one", "two"):
            logging.getLogger("avtomatika_worker.test").warning(text)
    finally:
        logging.root.removeHandler(broken)
        logging.root.removeHandler(sound)
    assert sound.seen == ["one", "two"]
    assert capsys.readouterr().err.count(f"raised {raised.__name__}: oh") == 1  # once, not for each record


@pytest.mark.parametrize("where", ["the factory of records", "a filter", "what records are made with"])
@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_in_making_a_record_does_not_reach_the_caller(where, raised, capsys, monkeypatch):
    kind = type("OfThisTest", (raised,), {})

    def raises(*_args, **_kwargs):
        raise kind("oh")

    logger = logging.getLogger("avtomatika_worker.lost")
    contain_handlers()
    if where == "a filter":
        monkeypatch.setattr(logger, "filters", [raises])
    elif where == "the factory of records":
        monkeypatch.setattr(logging, "_logRecordFactory", raises)
    else:
        monkeypatch.setattr(os, "getpid", raises)
    logger.warning("one")
    TracebackLogger(logger).log(logging.WARNING, "two", (), "a traceback", extra={})
    monkeypatch.undo()
    assert capsys.readouterr().err.count("a log record was lost: OfThisTest was raised") == 1  # once, not for each


def test_a_record_names_its_caller_whoever_contains_its_logger(caplog):
    logger = logging.getLogger("avtomatika_worker.caller")
    contain_handlers()
    logger.warning("one")
    logger.log(logging.WARNING, "two")
    TracebackLogger(logger).log(logging.WARNING, "three", (), "a traceback", extra={})
    assert {(each.filename, each.funcName) for each in caplog.records} == {
        ("test_containment.py", "test_a_record_names_its_caller_whoever_contains_its_logger")
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.parametrize("where", ["thread", "coroutine"])
async def test_a_forked_child_that_returns_from_a_skill_ends_there(where, worker):
    def fork_in_thread():
        return {"pid": os.fork()}

    async def fork_in_coroutine():
        return {"pid": os.fork()}

    worker.skill("fork")(fork_in_thread if where == "thread" else fork_in_coroutine)
    async with WorkerHarness(worker, own_thread=True) as h:
        task = h.submit("fork", {})
        pid = (await task.result()).data["pid"]
        assert pid
        assert await asyncio.to_thread(os.waitpid, pid, 0) == (pid, 0)
        assert len(task.job.results_received) == 1


def test_the_loop_goes_on_to_the_end_of_what_it_runs():
    loop = contained_loop(asyncio.new_event_loop)

    async def main():
        loop.call_soon(loop.stop)
        await asyncio.sleep(0)
        loop.call_soon(sys.exit, 3)
        await asyncio.sleep(0)
        return threading.current_thread().name

    try:
        assert run_to_end(loop, main()) == "MainThread"
        with pytest.raises(SystemExit):  # of what it runs itself
            run_to_end(loop, _exit())
    finally:
        loop.close()


async def _exit():
    sys.exit(4)
