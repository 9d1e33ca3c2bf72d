"""What an endurance run makes of a history that is not right, and what its wire writes down."""

import asyncio
import contextlib
import json
import random
import sys
import time
from dataclasses import replace

import pytest

from avtomatika_worker.testing.history import Entry, Kind
from bench.endure.__main__ import NOT_INSTALLED, main
from bench.endure.client import Job
from bench.endure.course import Plan
from bench.endure.judge import Evidence, Judge
from bench.endure.wire import Wire
from bench.endure.workload import Task, events_of, is_right, task_of
from bench.soak import faults
from bench.soak.check import Journal
from bench.soak.jobs import answer, refusal
from bench.soak.processes import Life
from cluster.releases import PROTOCOLS

SEED = 7
KILLED, ORDERLY = "endure/worker-1", "endure/worker-2"


class Run:
    """A run made up by hand: a worker that was killed at 100 s, and one that ended in order at 200 s."""

    def __init__(self, directory):
        self.began = time.time() - 1000
        lives = {
            KILLED: Life(KILLED, self.began, "SIGKILL", self.began + 100, self.began + 100, -9),
            ORDERLY: Life(ORDERLY, self.began + 101, "SIGTERM", self.began + 200, self.began + 201, 0),
        }
        other = Life("endure/orchestrator-1", self.began, "SIGTERM", self.began + 210, self.began + 211, 0)
        log = directory / "worker.log"
        log.write_text("")
        self.evidence = Evidence([], Journal(), [], lives, [other], log)
        self.call("register", 0.1, slots=4)

    def call(self, call, at, task="", job="", code=200, life=KILLED, until=None, **facts):
        """Let a call arrive, and be answered at once or at ``until``."""
        facts = {"call": call, "number": len(self.evidence.entries), **facts}
        ids = {"worker_id": life, "task_id": task, "job_id": job, "orchestrator": "one"}
        for kind, moment, more in (
            (Kind.CALL_SENT, at, {}),
            (Kind.CALL_ANSWERED, at if until is None else until, {"code": code}),
        ):
            self.evidence.entries.append(Entry(at=self.began + moment, kind=kind, **ids, facts={**facts, **more}))

    def job(self, number=1, kind="echo", submitted=1.0, state="finished", **task):
        """Submit a job; return its id and the params of its task."""
        params = {"number": number, "salt": "s"}
        job = Job(Task(number, kind, kind, params, **task), f"job-{number}", self.began + submitted, 1, state)
        job.ended = self.began + submitted + 2
        self.evidence.jobs.append(job)
        return job.id, params

    def hand_out(self, job, params, at, task="task-1", skill="echo", life=KILLED, **facts):
        """Hand its task out."""
        ids = {"worker_id": life, "task_id": task, "job_id": job, "orchestrator": "one"}
        facts = {"skill": skill, "params": params, **facts}
        self.evidence.entries.append(Entry(at=self.began + at, kind=Kind.HANDED_OUT, **ids, facts=facts))

    def ran(self, began, ended=None, task="task-1", life=KILLED):
        """Note when it ran."""
        self.evidence.journal.began[task].append((life, self.began + began))
        if ended is not None:
            self.evidence.journal.ended[task].append((life, self.began + ended))

    def result(self, job, params, at, task="task-1", skill="echo", answered="accepted", **changed):
        """Let its result arrive, as it should be but for what is ``changed``."""
        result = {"status": "success", "data": answer(skill, params["number"], params["salt"]), "error": None}
        self.call("result", at, task, job, **{**result, **changed}, answer=answered)

    def findings(self):
        """Return what is wrong."""
        return [str(finding) for finding in Judge(self.evidence).findings()]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_run_where_all_is_well_has_no_findings(run):
    job, params = run.job()
    run.hand_out(job, params, 1.1)
    run.ran(1.2, 1.3)
    run.result(job, params, 1.4)
    assert run.findings() == []


def test_a_result_that_was_dropped_is_found(run):
    job, params = run.job(state="failed")
    run.hand_out(job, params, 11.1)
    run.ran(11.2, 11.3)
    run.call("result", 11.4, "task-1", job, code=500, status="success", error=None, data=answer("echo", 1, "s"))
    (finding,) = [text for text in run.findings() if text.startswith("results_settled")]
    assert "task-1" in finding


def test_a_task_without_any_result_is_found_unless_its_worker_was_killed_as_it_ran(run):
    job, params = run.job()
    run.hand_out(job, params, 11.1)
    run.ran(11.2)
    finding = f"unanswered: task task-1 (echo) of job {job} has no result"
    assert finding not in run.findings()
    run.evidence.workers[KILLED].signal = "SIGTERM"
    assert finding in run.findings()


def test_work_that_runs_twice_at_once_is_found_whatever_its_ids(run):
    job, params = run.job()
    for number in (1, 2):
        run.hand_out(job, params, number, f"task-{number}")
        run.ran(number + 0.1, number + 5, f"task-{number}")
        run.result(job, params, number + 5.1, f"task-{number}", answered="accepted" if number == 2 else "ignored")
    (finding,) = run.findings()
    assert finding.startswith("work_never_doubled")


def test_another_jobs_value_is_found(run):
    job, params = run.job()
    run.hand_out(job, params, 1.1)
    run.ran(1.2, 1.3)
    run.result(job, params, 1.4, data=answer("echo", 2, "s"))
    (finding,) = run.findings()
    assert finding.startswith("wrong_result: a wrong result of task task-1 (echo)")


def test_a_task_may_be_cancelled_unasked_if_its_orchestrator_has_forgotten_it(run):
    job, params = run.job(kind="slow", state="")
    run.hand_out(job, params, 1.1, skill="slow")
    run.ran(1.2)
    run.evidence.journal.broke_off["task-1"].append((KILLED, run.began + 3.3))
    run.result(job, params, 3.4, skill="slow", status="cancelled", data={})
    found = 'wrong_result: a wrong result of task task-1 (slow): {"status": "cancelled", "error": null, "data": {}}'
    assert found in run.findings()
    run.evidence.orchestrators.insert(
        0, Life("endure/orchestrator-0", run.began, "SIGKILL", run.began + 2, run.began + 2)
    )
    assert run.findings() == []


@pytest.mark.parametrize(("at", "until"), [(51.0, None), (20.0, 90.0)])
def test_a_job_that_fails_is_found_only_where_nothing_was_disturbed(run, at, until):
    job, _ = run.job(submitted=50.0, state="failed")
    assert [text.partition(" is failed")[0] for text in run.findings()] == [f"jobs: job {job} (echo)"]
    run.call("result", at, code=500, until=until, status="success", data={}, error=None, fault="silence")
    assert not any(text.startswith("jobs") for text in run.findings())


@pytest.mark.parametrize(("polls", "findings"), [([60.0], 0), ([20.0, 60.0], 1), ([], 0)])
def test_a_job_may_fail_while_the_orchestrators_limit_keeps_the_worker_from_polling(run, polls, findings):
    run.evidence.orchestrators[0].signalled = run.began + 400
    run.call("poll", 15.0, code=429)
    for at in polls:
        run.call("poll", at, code=204)
    run.job(submitted=50.0, state="failed")
    assert [text.partition(":")[0] for text in run.findings()] == ["jobs"] * findings


def test_a_job_may_fail_while_a_worker_takes_its_time_to_end_and_after_it(run):
    run.evidence.orchestrators[0].signalled = run.evidence.orchestrators[0].ended = run.began + 400
    run.evidence.workers[ORDERLY].ended = run.began + 212
    for number, submitted in enumerate([211.5, 230.0]):
        run.job(number, submitted=submitted, state="quarantined")
    assert run.findings() == []
    run.call("register", 225.0, slots=4, life="endure/worker-3")
    assert [text.partition(" is quarantined")[0] for text in run.findings()] == ["jobs: job job-1 (echo)"]


def test_results_that_were_on_disk_at_a_kill_have_to_arrive(run):
    job, params = run.job()
    run.hand_out(job, params, 98.0)
    run.ran(98.1, 99.5)
    run.evidence.workers[KILLED].stored = ["task-1"]
    (finding,) = [text for text in run.findings() if text.startswith("stored")]
    assert "task-1" in finding
    run.result(job, params, 110.0, life=ORDERLY)
    assert run.findings() == []


@pytest.mark.parametrize("steps", [[], [1, 0], [0]])
def test_missing_and_reordered_events_are_found(run, steps):
    job, params = run.job(kind="thread")
    params = {**params, "events": 2}
    run.hand_out(job, params, 1.1, skill="thread")
    run.ran(1.2, 1.3)
    for step in steps:
        facts = {"event_id": f"e{step}", "event_type": "step", "payload": {"step": step}, "answer": "event_accepted"}
        run.call("event", 1.25 + step / 1000, "task-1", job, **facts)
    run.result(job, params, 1.4, skill="thread")
    assert f"events: the events of job {job}, task task-1 are" in "\n".join(run.findings())


@pytest.mark.parametrize(("sent", "findings"), [(207.0, 1), (209.9, 0)])
def test_a_result_may_overtake_an_event_that_a_disturbance_held_up_for_as_long_as_it_waits(run, sent, findings):
    """Also that of a task that broke off as its worker shut down."""
    run.evidence.workers[ORDERLY].ended = run.began + 211
    job, params = run.job(submitted=189.0, state="failed")
    run.hand_out(job, params, 190.0, life=ORDERLY)
    run.ran(190.1, life=ORDERLY)
    run.evidence.journal.broke_off["task-1"].append((ORDERLY, run.began + 205))
    run.evidence.cuts = [(run.began + 204, run.began + 206)]
    error = {"code": "TRANSIENT_ERROR", "message": "the worker is shutting down"}
    run.call("result", sent, "task-1", job, life=ORDERLY, status="failure", error=error, data={}, answer="accepted")
    event = {"event_id": "e0", "event_type": "step", "payload": {"step": 0}, "answer": "event_accepted"}
    run.call("event", sent + 0.1, "task-1", job, life=ORDERLY, **event)
    assert [text.partition(":")[0] for text in run.findings()] == ["events_before_result"] * findings


def test_a_cancelled_task_that_runs_on_is_found(run):
    job, params = run.job(kind="cancelled", submitted=20.0, state="cancelled", cancel_after=1.0)
    run.evidence.jobs[0].cancelled = run.began + 21
    run.hand_out(job, params, 20.1, skill="slow")
    run.ran(20.2, 32.0)
    run.result(job, params, 32.1, skill="slow", answered="ignored")
    assert run.findings() == [f"cancelled: task task-1 of job {job} ran for 11.0 s after it was cancelled"]


def test_lives_that_end_by_themselves_and_errors_in_the_log_are_found(run):
    run.evidence.orchestrators[0].signal = None
    run.evidence.log.write_text(
        json.dumps({"timestamp": "2026-11-28T12:00:00Z", "level": "ERROR", "action": "result_lost"}) + "\n"
    )
    assert [text.partition(":")[0] for text in run.findings()] == ["processes", "log"]


@pytest.mark.parametrize("release", PROTOCOLS)
def test_a_seed_decides_the_jobs_and_their_right_results(release):
    tasks = [task_of(SEED, number, release, 10.0, "bucket") for number in range(200)]
    assert tasks == [task_of(SEED, number, release, 10.0, "bucket") for number in range(200)]
    assert ("branches" in {task.kind for task in tasks}) == (release != "1.0b21")
    for task in tasks:
        if task.kind == "refuse":
            error = {"code": "PERMANENT_ERROR", "message": refusal(task.number)}
            assert is_right("refuse", task.params, {"status": "failure", "error": error})
        elif task.kind in {"echo", "thread", "process", "long"}:
            data = answer(task.skill, task.number, task.params["salt"])
            assert is_right(task.skill, task.params, {"status": "success", "data": data})
            assert not is_right(task.skill, task.params, {"status": "success", "data": {**data, "number": -1}})
            assert len(events_of(task.params, task.skill)) <= 3


def test_a_release_has_the_same_run_whichever_others_take_part():
    plan = Plan("1.0b30", SEED, 60.0, 1.0, 0.0, 30.0, 30.0, 1.0, 1.0)
    assert plan.own_seed != replace(plan, release="1.0b21").own_seed
    assert plan.settings() == replace(plan, seconds=1.0).settings()


def test_a_release_that_cannot_be_installed_ends_the_run_before_it_begins_and_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AVTOMATIKA_E2E_CACHE", str(tmp_path))
    (tmp_path / "1.0b30-py{}.{}".format(*sys.version_info)).write_text("where the environment would be")
    assert main(["--minutes", "1", "--release", "1.0b30"]) == NOT_INSTALLED
    assert "1.0b30 could not be installed" in capsys.readouterr().err


async def test_the_wire_writes_down_a_hand_out_and_breaks_what_it_is_dealt():
    task = json.dumps({"job_id": "job-1", "task_id": "task-1", "type": "echo", "params": {"number": 1}}).encode()

    async def serve(reader, writer):
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(task), task)
                )

    async def poll(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /_worker/workers/w/tasks/next HTTP/1.1\r\nHost: x\r\nAccept-Encoding: zstd\r\n\r\n")
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            return head, await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        deck = faults.Deck(SEED, 0.0, 0)
        wire = Wire(server.sockets[0].getsockname()[1], "1.0b17", deck, random.Random(SEED), 0.1, life="w-1")
        async with wire.open() as port:
            head, body = await poll(port)
            assert (body, b"Content-Length: %d" % len(task) in head) == (task, True)
            assert [entry.kind for entry in wire.entries] == [Kind.CALL_SENT, Kind.HANDED_OUT, Kind.CALL_ANSWERED]
            assert (wire.entries[1].worker_id, wire.entries[1].task_id) == ("w-1", "task-1")
            wire.deck = faults.Deck(SEED, 1.0, 0)
            ends = await asyncio.gather(*(poll(port) for _ in faults.KINDS), return_exceptions=True)
            assert any(isinstance(end, OSError | asyncio.IncompleteReadError) for end in ends)
            assert {kind for _, _, kind in wire.broken} == set(faults.KINDS)
            wire.honest = True
            cut = asyncio.create_task(wire.cut(0.05))
            await asyncio.sleep(0)
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await poll(port)
            await cut
            assert (await poll(port))[1] == task
