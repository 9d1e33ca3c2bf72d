"""A notice drains the worker: no more tasks, those that can finish in time do, the others go on elsewhere."""

import asyncio
import os
import signal
import sys
import threading

import pytest

from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, JobState
from avtomatika_worker.monitoring.clouds import AwsNotices, AzureNotices, GcpNotices
from avtomatika_worker.monitoring.notices import Notices
from cluster.processes import ManagedProcess
from preemption.metadata import Aws, Azure, Gcp, serving
from services.conftest import actions, in_thread, running


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator(poll_time=1.0, max_attempts=5) as started:
        yield started


@pytest.fixture(autouse=True)
def log_level(caplog):
    caplog.set_level("INFO", "avtomatika_worker")


class Seen:
    """What the skills of a worker have seen."""

    def __init__(self):
        self.preempted = []
        self.loaded = []
        self.called = 0
        self.draining = asyncio.Event()
        """Set once the orchestrator knows: a skill that had ended before would leave it no time to."""


def make_worker(seen, *, stops=True):
    """Return a worker with a skill that ends soon after a notice, and one that does not at the first worker."""
    worker = Worker(worker_type="test")

    @worker.skill
    async def short(ctx: TaskContext):
        noticed = asyncio.Event()
        ctx.on_preemption(noticed.set)
        await noticed.wait()
        await seen.draining.wait()
        seen.preempted.append(ctx.preempted)

    @worker.skill(cancel_grace=0.5)
    async def long(ctx: TaskContext):
        saved = await ctx.checkpoint.load()
        seen.loaded.append(saved)
        if saved is not None:
            return saved
        await ctx.checkpoint.save({"step": 1})
        over = asyncio.Event()

        async def save():
            seen.called += 1
            await ctx.checkpoint.save({"step": 2})  # due, although the last was a moment ago
            if stops:
                over.set()

        ctx.on_preemption(save)
        await over.wait()
        raise ConnectionAbortedError("this machine is taken away")

    return worker


async def drained(orchestrator, main, seen, jobs, announce):
    """Announce the end of the machine once the jobs run; return the seconds to "draining", and to the worker's end."""
    clock = asyncio.get_running_loop().time
    await orchestrator.wait_for(lambda: all(job.state is JobState.RUNNING for job in jobs))
    began = clock()
    announce()
    await orchestrator.wait_for(lambda: orchestrator.workers["w1"].status == "draining")
    draining = clock() - began
    seen.draining.set()
    await main
    return draining, clock() - began


async def goes_on_elsewhere(orchestrator, worker, job, state):
    """Start a second worker, which does what the first could not."""
    async with running(worker, orchestrator, worker_id="w2", state_dir=state):
        await job.done()
    assert job.state is JobState.FINISHED
    assert not [each for each in (state / "checkpoints").rglob("*") if each.is_file()]


@pytest.mark.parametrize(
    ("cloud", "source"), [(Aws, AwsNotices), (Gcp, GcpNotices), (Azure, AzureNotices)], ids=["aws", "gcp", "azure"]
)
async def test_a_cloud_s_notice_drains_the_worker(orchestrator, tmp_path, caplog, cloud, source):
    seen, cloud = Seen(), cloud()
    worker = make_worker(seen)
    async with serving(cloud) as base, running(worker, orchestrator, state_dir=tmp_path) as main:
        notices = Notices([source(base=base)])
        notices.on_notice = worker.preempt
        watching = asyncio.create_task(notices.run())
        short, long = orchestrator.submit("short"), orchestrator.submit("long")
        draining, ended = await drained(orchestrator, main, seen, [short, long], lambda: cloud.announce(30))
        watching.cancel()
    assert draining < 2.0  # a second, on a machine with time for it
    assert ended < 20.0
    assert short.state is JobState.FINISHED
    assert seen.preempted == [True]
    assert seen.called == 1
    assert len(actions(caplog, "preemption_notice")) == 1
    assert orchestrator.workers["w1"].status == "offline"
    assert long.state is JobState.QUEUED, "its failure is one that orchestrators retry"
    await goes_on_elsewhere(orchestrator, worker, long, tmp_path)
    assert seen.loaded == [None, {"step": 2}]


async def test_what_does_not_end_in_time_is_cancelled_and_reported_within_the_notice(orchestrator, tmp_path):
    seen, notice = Seen(), tmp_path / "drain"
    worker = make_worker(seen, stops=False)
    settings = {"preemption": (f"file:{notice}",), "state_dir": tmp_path, "shutdown_timeout": 60.0}
    async with running(worker, orchestrator, **settings) as main:
        long = orchestrator.submit("long")
        _, ended = await drained(orchestrator, main, seen, [long], lambda: notice.write_text("3"))
    assert 1.0 < ended < 3.0
    assert long.state is JobState.QUEUED
    assert long.error is None or long.error["code"] == "TRANSIENT_ERROR"
    await goes_on_elsewhere(orchestrator, worker, long, tmp_path)
    assert seen.loaded == [None, {"step": 2}]


async def test_tasks_get_the_whole_shutdown_timeout_if_nobody_says_how_much_time_is_left(orchestrator, tmp_path):
    seen, notice = Seen(), tmp_path / "drain"
    worker = make_worker(seen)
    async with running(worker, orchestrator, preemption=f"file:{notice}", state_dir=tmp_path) as main:
        short = orchestrator.submit("short")
        await drained(orchestrator, main, seen, [short], notice.touch)
    assert short.state is JobState.FINISHED
    assert seen.preempted == [True]


async def test_a_signal_after_a_notice_does_not_cut_the_shutdown_short(orchestrator, tmp_path):
    seen = Seen()
    worker = make_worker(seen)
    async with running(worker, orchestrator, state_dir=tmp_path) as main:
        short = orchestrator.submit("short")

        def announce():
            worker.preempt(60.0)
            worker.request_shutdown()  # as SIGTERM does, which follows

        await drained(orchestrator, main, seen, [short], announce)
    assert short.state is JobState.FINISHED
    assert not worker.ending.forced


async def test_a_task_that_comes_after_the_notice_knows_of_it(orchestrator, tmp_path):
    seen = Seen()
    worker = make_worker(seen)
    async with running(worker, orchestrator, state_dir=tmp_path) as main:
        seen.draining.set()
        worker.preempt(20.0)
        short = orchestrator.submit("short")  # a poll is held: it brings it
        await main
    if short.attempts:
        assert seen.preempted == [True]


async def test_orchestrators_hear_of_a_notice_while_a_skill_blocks_the_main_loop(orchestrator, tmp_path):
    worker, notice, through = Worker(worker_type="test"), tmp_path / "drain", threading.Event()

    @worker.skill
    async def block():
        return {"let go": through.wait(20)}

    settings = {"preemption": f"file:{notice}", "heartbeat_interval": 60.0}
    async with in_thread(worker, orchestrator, **settings):
        job = orchestrator.submit("block")
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        began = asyncio.get_running_loop().time()
        notice.write_text("15")
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].status == "draining")
        draining = asyncio.get_running_loop().time() - began
        assert not job.state.final
        through.set()
        await job.done()
    assert draining < 2.0  # a second, on a machine with time for it
    assert job.result == {"let go": True}


APP = """
import asyncio, time
from avtomatika_worker import TaskContext, Worker

worker = Worker()

@worker.skill(version="1")
def steps(ctx: TaskContext, count: int):
    loop = ctx.resumable(range(count), state=0)
    for step in loop:
        if ctx.preempted:
            print("PREEMPTED", flush=True)
        loop.state += step
        ctx.send_progress(step / count)
        time.sleep(0.05)
    return {"sum": loop.state}
"""


async def test_sigterm_as_kubernetes_sends_it_keeps_what_was_done_and_exits_with_0(orchestrator, tmp_path):
    (tmp_path / "app.py").write_text(APP, "utf-8")

    def start(name):
        environment = {
            "WORKER_ID": name,
            "WORKER_TOKEN": orchestrator.token,
            "ORCHESTRATOR_URL": orchestrator.url,
            "WORKER_STATE_DIR": str(tmp_path / "state"),
            "WORKER_PREEMPTION": "sigterm",
            "WORKER_SHUTDOWN_TIMEOUT": "0.5",
            "CHECKPOINT_INTERVAL": "3600",
        }
        command = [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "app:worker", "--no-health-check"]
        return ManagedProcess(name, command, env=environment, cwd=tmp_path)

    job = orchestrator.submit("steps", {"count": 60})
    pod = start("pod-1")
    try:
        await orchestrator.wait_for(lambda: job.progress.fraction > 0, timeout=30)
        os.kill(pod.pid, signal.SIGTERM)
        assert await asyncio.to_thread(pod.wait, 20.0) == 0
        assert "PREEMPTED" in pod.output()
        assert job.state is JobState.QUEUED
        pod = start("pod-2")
        await job.done()
    finally:
        pod.kill()
    assert job.result == {"sum": sum(range(60))}
    assert job.attempts == 2


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_callback_that_exits_ends_nothing_and_the_log_says_so(orchestrator, caplog, awaited):
    worker = Worker(worker_type="test")

    def leave():
        sys.exit(3)

    async def leave_later():
        leave()

    @worker.skill
    def work(ctx: TaskContext):
        begun, seen = threading.Event(), []
        ctx.on_preemption(leave_later if awaited else leave)
        ctx.on_preemption(begun.set)
        seen.append(begun.wait(10))
        return seen

    async with running(worker, orchestrator) as main:
        job = orchestrator.submit("work")
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        worker.preempt(10)
        await main
    assert job.result == {"result": [True]}
    assert actions(caplog, "preemption_callback_failed")
