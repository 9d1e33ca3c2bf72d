"""The soak with faults: a short one, whole, and what its check makes of a history that is not complete."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.soak import faults
from bench.soak.check import Check
from bench.soak.disturbance import until
from bench.soak.history import History
from bench.soak.jobs import HISTORY, JOURNAL, answer, job_of, refusal
from bench.soak.processes import HANDLES_WITHIN, Life, Victim

ROOT = Path(__file__).resolve().parents[2]
SEED = 7

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for left-over processes in /proc")


@linux
@pytest.mark.timeout(160)
def test_a_short_soak_is_complete(tmp_path):
    report = tmp_path / "report.json"
    options = ("--minutes", "0.25", "--seed", "5", "--kill-every", "7.5", "--broken", "0.05")
    times = ("--silence", "3", "--patience", "10", "--drain", "90")  # longer than the wait after a 429
    command = [sys.executable, "-m", "bench.soak", *options, *times, "--report", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    found = json.loads(report.read_text())
    assert found["complete"]
    assert found["seed"] == 5
    assert found["drained"]
    assert found["ends"]["worker"]["SIGKILL"] >= 1
    assert found["ends"]["worker"]["SIGTERM"] >= 2  # the last one is the end
    assert found["ends"]["orchestrator"]["SIGKILL"] == 2
    assert found["jobs"]["done"] > 0
    assert set(found["broken"]) <= set(faults.KINDS)
    assert sum(found["broken"].values()) > 0


class Soak:
    """A history made by hand: one worker that was killed at 100 s, and one that ended in order at 200 s."""

    def __init__(self, directory):
        self.directory = directory
        self.now = time.time()
        self.history = History(directory / HISTORY)
        self.history.mark("listening")
        self.history.mark("registered")
        self.lines = []
        self.killed = Life("soak/worker-1", self.now - 100, "SIGKILL", self.now + 100, self.now + 100, -9, rss=60.0)
        self.orderly = Life("soak/worker-2", self.now + 101, "SIGTERM", self.now + 200, self.now + 201, 0, rss=60.0)
        (directory / "worker.log").write_text("")

    def hand_out(self, skill, fault=None):
        """Hand out the next job of a skill; return it with its task's id."""
        number = next(n for n in range(self.history.last_number() + 1, 10_000) if job_of(SEED, n).skill == skill)
        self.history.add_job(number)
        return job_of(SEED, number), self.history.hand_out(job_of(SEED, number), 30.0, fault).task

    def ran(self, task, began, ended=None, life="soak/worker-1"):
        """Note in the journal when a task began and ended, in seconds."""
        for what, at in (("began", began), ("ended", ended)):
            if at is not None:
                self.lines.append(json.dumps({"at": self.now + at, "life": life, "task": task, "what": what}))

    def result(self, job, task, verdict="accepted", state="done", **changed):
        """Add a result as it should be, but for what is ``changed``."""
        data = answer(job.skill, job.number, job.params["salt"])
        signed = {"security": {"signature": f"{task}/{len(self.lines)}/{verdict}"}}
        message = {"task_id": task, "job_id": job.job_id, "status": "success", "data": data, **signed, **changed}
        self.history.add_result(message, verdict, state, None)

    def done_again(self, job):
        """Hand a job out a second time, and let that end well."""
        task = self.history.hand_out(job, 30.0, None).task
        self.ran(task, 160, 161, "soak/worker-2")
        self.result(job, task)

    def faults(self):
        """Return what the check finds."""
        (self.directory / JOURNAL).write_text("".join(f"{line}\n" for line in self.lines))
        lives = [self.killed, self.orderly]
        return Check(self.directory, SEED, self.now + 1000, lives, []).run().faults


@pytest.fixture
def soak(tmp_path):
    soak = Soak(tmp_path)
    with contextlib.closing(soak.history):
        yield soak


def test_a_complete_history_has_no_faults(soak):
    job, task = soak.hand_out("thread")
    soak.ran(task, 1, 2)
    for step in range(job.events):
        assert soak.history.add_event(f"e{step}", task, step)
    soak.result(job, task)
    job, task = soak.hand_out("refuse")
    soak.ran(task, 1, 2)
    error = {"code": "PERMANENT_ERROR", "message": refusal(job.number)}
    soak.result(job, task, state="failed", status="failure", data=None, error=error)
    assert soak.faults() == []


@pytest.mark.parametrize(
    ("began", "ended", "life", "fault"),
    [
        (1, 2, "soak/worker-1", "its skill ended in soak/worker-1"),
        (150, 199.9, "soak/worker-2", "its skill ended in soak/worker-2"),
        (150, None, "soak/worker-2", "it began in soak/worker-2, which ended by SIGTERM"),
        (None, None, "", "it never began"),
    ],
)
def test_a_task_without_a_result_needs_a_reason(soak, began, ended, life, fault):
    job, task = soak.hand_out("echo")
    soak.ran(task, began, ended, life)
    soak.done_again(job)
    assert soak.faults() == [f"{task} has no result: {fault}"]


@pytest.mark.parametrize(("began", "ended"), [(1, None), (1, 99)])
def test_a_kill_is_a_reason(soak, began, ended):
    job, task = soak.hand_out("echo")
    soak.ran(task, began, ended)
    soak.done_again(job)
    assert soak.faults() == []


def test_a_broken_answer_is_a_reason(soak):
    job, _ = soak.hand_out("echo", fault="cut_body")
    soak.done_again(job)
    assert soak.faults() == []


def test_a_job_without_an_outcome_is_named(soak):
    job, _ = soak.hand_out("echo", fault="silence")
    assert soak.faults() == [f"job {job.number} has no outcome: it is running"]


def test_a_second_outcome_is_named(soak):
    job, task = soak.hand_out("echo")
    soak.ran(task, 1, 2)
    soak.result(job, task)
    soak.ran(task, 3, 4)
    soak.result(job, task)
    assert soak.faults() == [f"job {job.number} has 2 outcomes"]


def test_results_that_were_on_disk_have_to_arrive(soak):
    job, task = soak.hand_out("echo")
    soak.ran(task, 1, 99)
    soak.killed.stored = [task]
    soak.done_again(job)
    assert soak.faults() == [f"the result of {task} was on disk as soak/worker-1 ended, and never came"]


@pytest.mark.parametrize(
    "changed",
    [{"data": {"number": 1}}, {"job_id": "job-0"}, {"status": "failure", "error": {"code": "INTERNAL_ERROR"}}],
)
def test_a_wrong_outcome_is_named(soak, changed):
    job, task = soak.hand_out("echo")
    soak.ran(task, 1, 2)
    soak.result(job, task, **changed)
    (fault,) = soak.faults()
    assert task in fault


def test_another_jobs_value_is_named(soak):
    job, task = soak.hand_out("echo")
    other, other_task = soak.hand_out("echo")
    for each in (task, other_task):
        soak.ran(each, 1, 2)
    soak.result(job, task)
    soak.result(other, other_task, data=answer("echo", job.number, job.params["salt"]))
    (fault,) = soak.faults()
    assert fault.startswith(f"a wrong outcome of {other_task} (echo): success")


@pytest.mark.parametrize("steps", [[], [0], [1, 0]])
def test_missing_and_reordered_events_are_named(soak, steps):
    job, task = soak.hand_out("thread")
    soak.ran(task, 1, 2)
    for step in steps:
        soak.history.add_event(f"e{step}", task, step)
    soak.result(job, task)
    assert soak.faults() == [f"the events of {task} are {steps} instead of [0, 1]"]


def test_lives_that_end_by_themselves_or_with_a_wrong_code_or_grow_are_named(soak):
    soak.killed.signal = None
    soak.orderly.code, soak.orderly.rss = 3, 400.0
    assert soak.faults() == [
        "soak/worker-1 ended by itself with -9",
        "soak/worker-2 did not end in order after SIGTERM: exit code 3",
        "soak/worker-2 took 400 MiB",
    ]


def test_a_life_that_sigterm_ends_before_it_has_a_handler_is_named_only_when_it_should_have_had_one(soak):
    soak.orderly.code = -signal.SIGTERM
    soak.orderly.signalled = soak.orderly.began + HANDLES_WITHIN / 2
    named = f"{soak.orderly.name} did not end in order after SIGTERM: exit code -15"
    assert soak.faults() == [named]
    soak.orderly.caught = False
    assert soak.faults() == []
    soak.orderly.signalled = soak.orderly.began + HANDLES_WITHIN * 2
    assert soak.faults() == [named]


HANDLER = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))"


@linux
@pytest.mark.parametrize(("before", "caught", "code"), [("", False, -signal.SIGTERM), (HANDLER, True, 3)])
async def test_a_life_knows_whether_it_had_a_handler_for_its_signal(tmp_path, before, caught, code):
    program = f"{before}\nprint('begun', flush=True)\nimport time\nwhile True: time.sleep(0.1)"
    victim = Victim("worker", [sys.executable, "-c", program], {}, tmp_path)
    await victim.start()
    try:
        assert await until(lambda: "begun" in (tmp_path / "worker.log").read_text(), 30.0)
        life = await victim.end(signal.SIGTERM)
        await victim.settled()
    finally:
        victim.kill_all()
    assert (life.caught, life.code) == (caught, code)
    assert life.in_order == (not caught)


def test_errors_in_the_log_and_what_is_printed_are_named(soak):
    record = json.dumps({"level": "ERROR", "action": "result_lost"})
    expected = json.dumps({"level": "ERROR", "action": "loop_blocked"})
    (soak.directory / "worker.log").write_text(f"{record}\n{expected}\nTraceback (most recent call last):\n")
    assert soak.faults() == [
        f"logged by the worker: {record}",
        "printed by the worker: Traceback (most recent call last):",
    ]


def test_the_deck_deals_every_way_in_turn_and_goes_on_after_a_restart():
    deck = faults.Deck(SEED, 1.0, 0)
    dealt = [deck.deal() for _ in range(24)]
    assert sorted(dealt[:12]) == sorted(dealt[12:]) == sorted(faults.KINDS)
    later = faults.Deck(SEED, 1.0, 5)
    assert [later.deal() for _ in range(19)] == dealt[5:]
    assert len(faults.KINDS) == 12


def test_an_orchestrator_that_was_killed_knows_what_it_handed_out(tmp_path):
    history = History(tmp_path / HISTORY)
    job = job_of(SEED, 1)
    history.add_job(1)
    task = history.hand_out(job, -1.0, None).task
    assert history.add_event("e", task, 0)
    with contextlib.closing(history), contextlib.closing(History(tmp_path / HISTORY)) as again:
        assert again.run == history.run + 1
        assert again.expire() == [1]
        assert again.waiting() == [1]
        assert not again.add_event("e", task, 0)
        assert again.hand_out(job, 30.0, None).task != task
