"""Supervision: whatever a part does when it opens, runs or closes, the others are closed, and somebody hears of it."""

import asyncio
import contextlib
import threading

import pytest

from avtomatika_worker import ConfigError
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from avtomatika_worker.protocol.messages import WorkerStatus
from avtomatika_worker.steps import Failures, Steps
from avtomatika_worker.supervisor import MainService, Part
from services.assembled import make_supervisor
from services.conftest import actions, running

# ---------------------------------------------------------------------------------------------------- steps


class Hanging:
    """Does not end until it is let go, whoever cancels it."""

    def __init__(self):
        self.go = asyncio.Event()

    async def __call__(self):
        while not self.go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.go.wait()


RAISED = [
    OSError("failed"),
    RuntimeError("failed"),
    asyncio.CancelledError(),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    BaseExceptionGroup("several", [SystemExit(1), ValueError()]),
]


def named(error):
    return type(error).__name__


@contextlib.asynccontextmanager
async def steps(force=None):
    failures = Failures()
    async with asyncio.TaskGroup() as group:
        yield Steps(group, force or asyncio.get_running_loop().create_future(), failures), failures


@pytest.mark.parametrize("error", RAISED, ids=named)
async def test_a_step_that_raises_anything_is_reported_and_the_next_follows(error, caplog):
    done = []

    async def fail():
        await asyncio.sleep(0)
        raise error

    async def succeed():
        done.append(True)

    async with steps() as (all_steps, failures):
        assert not await all_steps.run("fail", fail, 1)
        assert await all_steps.run("succeed", succeed, 1)
    assert done == [True]
    assert failures.first in (error, getattr(failures.first, "__cause__", None)) or failures.first.__cause__ is error
    assert isinstance(failures.first, Exception)
    (text,) = actions(caplog, "part_failed")
    assert "'fail'" in text


async def test_a_step_that_hangs_is_left_after_its_limit_and_the_next_follows(caplog):
    hanging = Hanging()
    async with steps() as (all_steps, failures):
        assert not await all_steps.run("hang", hanging, 0.02)
        assert await all_steps.run("go on", lambda: asyncio.sleep(0), 1)
        hanging.go.set()
    assert failures.first is None
    assert actions(caplog, "shutdown_step_cut") == ["shutdown: could not hang in time"]


async def test_what_a_step_raises_when_it_is_cut_is_reported_too(caplog):
    async def fail_at_its_end():
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("failed at its end")

    async with steps() as (all_steps, failures):
        assert not await all_steps.run("fail", fail_at_its_end, 0.02)
    assert isinstance(failures.first, OSError)
    assert actions(caplog, "part_failed")


async def test_once_forced_a_step_is_skipped_unless_it_has_a_limit_for_haste():
    force = asyncio.get_running_loop().create_future()
    done = []

    async def step(name):
        done.append(name)

    async with steps(force) as (all_steps, _):
        waiting = asyncio.create_task(all_steps.run("wait", asyncio.Event().wait, 60))
        await asyncio.sleep(0)
        force.set_result(None)
        assert not await waiting
        assert not await all_steps.run("skipped", lambda: step("skipped"), 60)
        assert await all_steps.run("done", lambda: step("done"), 60, in_haste=1)
    assert done == ["done"]


async def test_a_caller_that_is_cancelled_during_a_step_goes_on_in_haste():
    done = []

    async def sequence(all_steps):
        done.append(await all_steps.run("wait", asyncio.Event().wait, 60))
        done.append(await all_steps.run("close", lambda: asyncio.sleep(0), 60, in_haste=1))

    async with steps() as (all_steps, _):
        task = asyncio.create_task(sequence(all_steps))
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(5):
            await task
    assert done == [False, True]


# ---------------------------------------------------------------------------------------------------- a worker


async def until(predicate):
    """Wait until ``predicate()`` is true."""
    async with asyncio.timeout(10):
        while not predicate():  # noqa: ASYNC110 - of what the test's own parts note
            await asyncio.sleep(0.005)


class Traced:
    """A part that notes when it is opened and closed, and may fail or hang at either."""

    def __init__(self, name, seen, *, opening=None, closing=None, limit=0.05):
        self.part = Part(name, lambda: self._do("open", name, opening), lambda: self._do("close", name, closing), limit)
        self._seen = seen

    async def _do(self, what, name, trouble):
        self._seen.append(f"{what} {name}")
        if isinstance(trouble, BaseException):
            raise trouble
        if trouble is not None:
            await trouble()


async def ended(supervisor, run):
    """Return what ``run`` raised, once everything has stopped."""
    async with asyncio.timeout(20):
        await supervisor.stopped()
        (outcome,) = await asyncio.gather(run, return_exceptions=True)
    return outcome


@pytest.mark.parametrize("trouble", [*RAISED, "hang"], ids=lambda each: each if isinstance(each, str) else named(each))
async def test_a_part_that_does_not_close_keeps_none_of_the_others_from_it(orchestrator, worker, trouble, caplog):
    hanging, seen = Hanging(), []
    parts = [
        Traced("a", seen).part,
        Traced("b", seen, closing=hanging if trouble == "hang" else trouble).part,
        Traced("c", seen, closing=hanging if trouble == "hang" else trouble).part,
    ]
    supervisor, _ = make_supervisor(worker, orchestrator, parts=parts)
    run = asyncio.create_task(supervisor.run())
    await orchestrator.wait_for_worker("w1")
    supervisor.shutdown()
    outcome = await ended(supervisor, run)
    hanging.go.set()
    assert seen == ["open a", "open b", "open c", "close c", "close b", "close a"]
    if trouble == "hang":
        assert outcome is None
        cut = actions(caplog, "shutdown_step_cut")
        assert cut[:2] == ["shutdown: could not close c in time", "shutdown: could not close b in time"]
    else:
        assert isinstance(outcome, Exception)
        assert trouble in (outcome, outcome.__cause__) or isinstance(trouble, BaseExceptionGroup)
        assert len(actions(caplog, "part_failed")) == 2
    assert orchestrator.workers["w1"].status == "offline"


@pytest.mark.parametrize("error", [ConfigError(["wrong"]), OSError("no such file"), SystemExit(3)], ids=named)
async def test_a_part_that_does_not_open_ends_the_start_and_those_before_it_are_closed(orchestrator, worker, error):
    seen = []
    parts = [Traced("a", seen).part, Traced("b", seen, opening=error).part, Traced("c", seen).part]
    supervisor, _ = make_supervisor(worker, orchestrator, parts=parts)
    outcome = await ended(supervisor, asyncio.create_task(supervisor.run()))
    assert error in (outcome, outcome.__cause__)
    assert seen == ["open a", "open b", "close b", "close a"]
    assert not orchestrator.workers


async def test_a_worker_that_is_asked_to_stop_before_its_start_opens_what_it_must_and_closes_it(orchestrator, worker):
    seen = []
    supervisor, _ = make_supervisor(worker, orchestrator, parts=[Traced("a", seen).part, Traced("b", seen).part])
    supervisor.shutdown()
    assert await ended(supervisor, asyncio.create_task(supervisor.run())) is None
    assert seen == ["close a"]
    assert not orchestrator.workers


@pytest.mark.parametrize("how", ["asked to stop", "cancelled"])
async def test_a_start_that_takes_long_can_be_stopped(orchestrator, worker, how):
    seen = []
    parts = [Traced("a", seen, opening=asyncio.Event().wait).part, Traced("b", seen).part]
    supervisor, _ = make_supervisor(worker, orchestrator, parts=parts)
    run = asyncio.create_task(supervisor.run())
    await until(lambda: seen)
    if how == "cancelled":
        run.cancel()
    else:
        supervisor.shutdown()
    outcome = await ended(supervisor, run)
    assert isinstance(outcome, asyncio.CancelledError) is (how == "cancelled")
    assert seen == ["open a", "close a"]


class Crashing:
    """A service that fails on request, or when it is taken down."""

    def __init__(self, *, at_its_end=False):
        self.crash, self.crashed = threading.Event(), threading.Event()
        self._at_its_end = at_its_end

    async def run(self):
        try:
            while not self.crash.is_set():  # noqa: ASYNC110 - any thread may set it
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            if not self._at_its_end:
                raise
        self.crashed.set()
        raise ZeroDivisionError("a bug in a service")


@pytest.mark.parametrize("thread", ["main", "link"])
@pytest.mark.parametrize("moment", ["while it runs", "while it shuts down", "when it is taken down"])
async def test_a_service_that_crashes_ends_the_worker_in_order_and_is_raised(
    orchestrator, worker, thread, moment, caplog
):
    release = asyncio.Event()

    @worker.skill
    async def patient():
        await release.wait()
        return {"done": True}

    service = Crashing(at_its_end=moment == "when it is taken down")
    own = (
        {"services": [MainService("the test's", service.run)]} if thread == "main" else {"link_services": [service.run]}
    )
    supervisor, _ = make_supervisor(worker, orchestrator, **own)
    run = asyncio.create_task(supervisor.run())
    await orchestrator.wait_for_worker("w1")
    job = orchestrator.submit("patient", {})
    await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
    if moment != "while it runs":
        supervisor.shutdown()
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].status == "draining")
    if moment != "when it is taken down":
        service.crash.set()
        await until(service.crashed.is_set)
    release.set()
    outcome = await ended(supervisor, run)
    assert isinstance(outcome, ZeroDivisionError)
    assert "a bug in a service" in caplog.text
    assert job.result == {"done": True}  # what runs is finished all the same
    if thread == "main":
        assert orchestrator.workers["w1"].status == "offline"


async def test_what_fails_at_the_first_step_of_a_shutdown_skips_none_of_the_others(orchestrator, worker):
    release = asyncio.Event()

    @worker.skill
    async def patient():
        await release.wait()
        return {"done": True}

    supervisor, engine = make_supervisor(worker, orchestrator)
    run = asyncio.create_task(supervisor.run())
    await orchestrator.wait_for_worker("w1")
    job = orchestrator.submit("patient", {})
    await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
    failed = []

    def fail_once():  # not before: that the task runs may be published in a moment
        if not failed and engine.publisher.state().status is WorkerStatus.DRAINING:
            failed.append(True)
            raise OSError("failed")

    engine.publisher.on_change(fail_once)
    supervisor.shutdown()
    await orchestrator.wait_for(lambda: orchestrator.workers["w1"].status == "draining")
    release.set()
    assert isinstance(await ended(supervisor, run), OSError)
    assert job.result == {"done": True}
    assert orchestrator.workers["w1"].status == "offline"


async def test_what_fails_when_a_change_is_published_ends_the_worker_with_that_error(orchestrator, worker):
    supervisor, engine = make_supervisor(worker, orchestrator)
    run = asyncio.create_task(supervisor.run())
    await orchestrator.wait_for_worker("w1")
    failed = []

    def fail_once():
        if not failed:
            failed.append(True)
            raise OSError("failed")

    engine.publisher.on_change(fail_once)
    engine.publisher.changed()
    async with asyncio.timeout(10):
        with pytest.raises(OSError, match="failed"):
            await run
    assert orchestrator.workers["w1"].status == "offline"  # it shut down in order


@pytest.mark.parametrize("how", ["returns", "is cancelled"])
async def test_a_service_that_ends_before_the_worker_is_a_failure(orchestrator, worker, how, caplog):
    tasks = []

    async def run():
        tasks.append(asyncio.current_task())
        if how != "returns":
            await asyncio.Event().wait()

    supervisor, _ = make_supervisor(worker, orchestrator, services=[MainService("the test's", run)])
    running_it = asyncio.create_task(supervisor.run())
    await until(lambda: tasks)
    if how != "returns":
        tasks[0].cancel()
    outcome = await ended(supervisor, running_it)
    assert isinstance(outcome, RuntimeError)
    assert "the test's" in str(outcome)
    assert actions(caplog, "part_failed") or actions(caplog, "part_cancelled")


async def test_a_service_that_does_not_end_is_left_behind_and_named(orchestrator, worker, caplog):
    hanging = Hanging()
    supervisor, _ = make_supervisor(worker, orchestrator, services=[MainService("the test's", hanging)])
    run = asyncio.create_task(supervisor.run())
    await orchestrator.wait_for_worker("w1")
    supervisor.shutdown()
    assert await ended(supervisor, run) is None
    assert "shutdown: could not stop the test's in time" in actions(caplog, "shutdown_step_cut")
    hanging.go.set()
    await asyncio.sleep(0)


async def test_results_are_on_disk_although_closing_the_connections_fails(orchestrator, worker, tmp_path):
    """The outbox is closed after the links: a failure there must not cost what waits in it."""

    @worker.skill
    async def echo(params: dict):
        return params

    failing = Traced("connections", [], closing=OSError("failed")).part
    supervisor, _ = make_supervisor(
        worker, orchestrator, parts=[failing], state_dir=str(tmp_path), shutdown_timeout=0.1
    )
    orchestrator.inject(Fault(call="result", kind="status", status=503, times=None))
    run = asyncio.create_task(supervisor.run())
    await orchestrator.wait_for_worker("w1")
    job = orchestrator.submit("echo", {"n": 1})
    await orchestrator.wait_for(lambda: [call for call in orchestrator.requests if call.call == "result"])
    supervisor.request_shutdown()
    supervisor.request_shutdown()
    assert isinstance(await ended(supervisor, run), OSError)
    orchestrator.clear_faults()
    async with running(worker, orchestrator, state_dir=str(tmp_path)):
        await job.done()
    assert job.result == {"n": 1}


async def test_shutdown_returns_however_the_worker_ends(worker):
    """`Worker.shutdown` waits for the end, whether or not it is a clean one."""
    async with EmbeddedOrchestrator() as orchestrator:
        supervisor, _ = make_supervisor(worker, orchestrator, parts=[Traced("a", [], closing=OSError("failed")).part])
        run = asyncio.create_task(supervisor.run())
        await orchestrator.wait_for_worker("w1")
        supervisor.shutdown()
        async with asyncio.timeout(10):
            await supervisor.stopped()
        with pytest.raises(OSError, match="failed"):
            await run
