"""kill -9 at random points of 500 tasks: what was stored arrives, what was only running is retried."""

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import sys
from collections import Counter

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from cluster.processes import ManagedProcess

JOBS, KILLS = 500, 8
SLOTS = 20
APP = """
import asyncio, os
from avtomatika_worker import TaskContext, Worker

worker = Worker()
begun = os.open(os.environ["BEGUN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@worker.skill
async def note(job_id: str, seconds: float):
    os.write(begun, f"{job_id}\\n".encode())  # one write: it is whole, or not there at all, after a kill
    await asyncio.sleep(seconds)
    return {"job": job_id}

@worker.skill(events={"step": {"type": "object"}})
async def steps(ctx: TaskContext):
    for number in range(3):
        ctx.send_event("step", {"number": number})
"""


class Subject:
    """The worker that is killed: a real process, which keeps each result on disk before the first attempt."""

    def __init__(self, orchestrator, directory):
        self._orchestrator = orchestrator
        self._directory = directory
        self._state = directory / "state"
        self._begun = directory / "begun"
        (directory / "app.py").write_text(APP, "utf-8")
        self._process = None

    async def start(self):
        environment = {
            "WORKER_ID": "w1",
            "WORKER_TOKEN": self._orchestrator.token,
            "ORCHESTRATOR_URL": self._orchestrator.url,
            "WORKER_RESULT_DURABILITY": "always",
            "WORKER_STATE_DIR": str(self._state),
            "MAX_CONCURRENT_TASKS": str(SLOTS),
            "BEGUN": str(self._begun),
            "PYTHONWARNINGS": "default",
        }
        command = [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "app:worker", "--no-health-check"]
        self._process = ManagedProcess("worker", command, env=environment, cwd=self._directory)
        registrations = self._registrations()
        await self._orchestrator.wait_for(lambda: self._registrations() > registrations, timeout=30)

    def _registrations(self):
        worker = self._orchestrator.workers.get("w1")
        return worker.registered_count if worker else 0

    def kill(self):
        """End it with SIGKILL."""
        self._process.kill()

    async def terminate(self):
        """End it as an operator does; return its exit code."""
        self._process.terminate()
        return await asyncio.to_thread(self._process.wait, 20.0)

    def stored(self):
        """Return the task ids of what is on disk; a copy is looked at, for looking changes the file."""
        copy = self._directory / "copy"
        shutil.copytree(self._state, copy)
        with contextlib.closing(sqlite3.connect(copy / "outbox-w1.sqlite3")) as connection:
            found = [task_id for (task_id,) in connection.execute("SELECT task_id FROM waiting")]
        shutil.rmtree(copy)
        return found

    @property
    def begun(self):
        return Counter(self._begun.read_text("utf-8").split())

    def end(self):
        if self._process is not None:
            self._process.kill()


@pytest.fixture
async def orchestrator():
    # A task that was only running comes back after `task_timeout`: a worker that is back does not list it.
    async with EmbeddedOrchestrator(poll_time=1.0, task_timeout=5.0, lease=600) as started:
        yield started


@pytest.fixture
def subject(orchestrator, tmp_path):
    subject = Subject(orchestrator, tmp_path)
    try:
        yield subject
    finally:
        subject.end()


@pytest.mark.parametrize("seed", [int(os.environ.get("KILL_SEED", "1"))])
async def test_no_stored_result_is_lost_and_no_task_disappears(orchestrator, subject, seed):
    chance = random.Random(seed)
    # Answers take their time, some get lost: there is always something that is stored and not known to be delivered.
    orchestrator.inject(
        Fault(call="result", kind="drop_before", times=None, when=lambda _call: chance.random() < 0.1),
        Fault(call="result", kind="drop_after", times=None, when=lambda _call: chance.random() < 0.1),
        Fault(call="result", kind="answer_late", delay=0.05, times=None),
    )
    jobs = [orchestrator.submit("note", {"seconds": chance.choice([0.0, 0.02, 0.1])}) for _ in range(JOBS)]
    stored = []
    for point in sorted(chance.sample(range(JOBS - 2 * SLOTS), KILLS)):
        await subject.start()
        await orchestrator.wait_for(lambda point=point: ended(jobs) > point, timeout=60)
        await asyncio.sleep(chance.uniform(0.0, 0.04))
        subject.kill()
        stored += subject.stored()
    await subject.start()
    for job in jobs:
        await job.done(timeout=60)
    assert await subject.terminate() == 0

    assert {job.state for job in jobs} == {JobState.FINISHED}
    begun = subject.begun
    for job in jobs:
        assert job.result == {"job": job.job_id}
        assert [received.status for received in job.results_received].count("accepted") == 1
        assert 1 <= begun[job.job_id] <= job.attempts  # run again only when it had been handed out again
    arrived = {received.message["task_id"] for job in jobs for received in job.results_received}
    assert stored
    assert arrived.issuperset(stored)
    assert subject.stored() == []
    assert max(job.attempts for job in jobs) > 1  # some were running when their worker died


def ended(jobs):
    return sum(job.state.final for job in jobs)


@pytest.mark.breaks_invariants("events_before_result")
async def test_events_behind_one_that_is_not_answered_are_on_disk(orchestrator, subject):
    """The result goes out without them after a while; a kill at that moment must not lose them."""
    orchestrator.inject(Fault(call="event", kind="drop_before", delay=60.0))
    await subject.start()
    job = await orchestrator.submit("steps").done(timeout=30)
    subject.kill()
    sent_again = len(subject.stored()) - 3  # the result, if its answer came too late to take it from there
    assert sent_again in {0, 1}
    await subject.start()
    await orchestrator.wait_for(lambda: (len(job.events), len(job.results_received)) == (3, 1 + sent_again), timeout=30)
    assert [event["payload"]["number"] for event in job.events] == [0, 1, 2]
    assert await subject.terminate() == 0
    assert subject.stored() == []
