"""Tasks that are handed out again while, or after, their work is done here (RXON.md, Behaviour 12)."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from avtomatika_worker import Worker
from avtomatika_worker.devserver import PRODUCTION_LIKE, EmbeddedOrchestrator, JobState
from services.adoption_app import in_process, skills
from services.conftest import actions, running
from services.scripted import Answer, Scripted

JOB = "5bd95dc9-271d-4450-9188-14fcf3cb7bf2"
STALE = Answer(body=b'{"status":"ignored","reason":"stale_task","message":"no longer active"}')
NOT_NOW = Answer(503, b'{"error":"starting up"}')


class Timing(Scripted):
    """An orchestrator that waits for the task that it handed out last, as the real ones do."""

    def __init__(self):
        super().__init__(self.answer)
        self.wanted = ""
        self.down = False
        self.cancelled = []
        self.event_code = None

    def answer(self, call):
        if call.kind == "heartbeat":
            return Answer(body=json.dumps({"status": "ok", "cancel_task_ids": self.cancelled}).encode())
        if call.kind == "event" and self.event_code:
            return Answer(body=json.dumps({"status": "error", "code": self.event_code}).encode())
        if call.kind == "result":
            return NOT_NOW if self.down else None if call.body["task_id"] == self.wanted else STALE
        return None

    async def again(self, task_id, skill, place, **fields):
        """Hand the work out under another id."""
        self.wanted = task_id
        task = {"job_id": JOB, "task_id": task_id, "type": skill, "params": {"place": str(place)}, "step": 1, **fields}
        await self.hand_out(task)

    async def accepted(self):
        """Wait for the result under the id that is wanted, and return its data."""
        await self.until(lambda: self.wanted in self.results())
        return self.results()[self.wanted]["data"]


@dataclass
class Place:
    path: Path

    @property
    def runs(self):
        file = self.path / "runs"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def open_gate(self):
        (self.path / "gate").touch()

    async def until(self, holds):
        async with asyncio.timeout(15):
            while not holds():  # noqa: ASYNC110 - files have no event
                await asyncio.sleep(0.005)

    async def has_run(self, times=1):
        await self.until(lambda: self.runs == times)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
async def orchestrator():
    async with Timing() as started:
        yield started


def new_worker():
    worker = Worker(worker_type="test")
    worker.include_blueprint(skills)
    return worker


@pytest.fixture
def worker():
    return new_worker()


def adopted(times):
    """For `Health.until`: so many hand-outs have been adopted."""
    return lambda shown: shown["adopted"] == times


def not_adopted(caplog):
    return not actions(caplog, "task_adopted")


@pytest.mark.parametrize("skill", ["awaits", "blocks", "isolated"])
async def test_what_runs_goes_on_and_answers_under_the_newest_id(orchestrator, worker, place, skill, health):
    if skill == "isolated":
        worker.include_blueprint(in_process)
    async with running(worker, orchestrator, **health.settings, max_concurrent_tasks=2, progress_interval=0.02):
        for number in range(1, 4):
            await orchestrator.again(f"task-{number}", skill, place.path)
            await health.until(adopted(number - 1))
            await place.has_run()
            seen = len(orchestrator.calls["event"])
            await orchestrator.until(lambda: len(orchestrator.calls["event"]) > seen + 1)  # noqa: B023
            assert orchestrator.calls["event"][-1].body["target_task_id"] == f"task-{number}"
        place.open_gate()
        assert await orchestrator.accepted() == {"run": 1}
    assert place.runs == 1
    assert [call.body["task_id"] for call in orchestrator.calls["result"]] == ["task-3"]


async def test_a_hand_out_that_is_adopted_takes_no_slot(orchestrator, worker, place, tmp_path, health):
    other = Place(tmp_path / "other")
    other.path.mkdir()
    async with running(worker, orchestrator, **health.settings, max_concurrent_tasks=2):
        await orchestrator.again("task-1", "awaits", place.path)
        await place.has_run()
        for number in range(2, 6):
            await orchestrator.again(f"task-{number}", "awaits", place.path)
        await health.until(adopted(4))
        await orchestrator.hand_out({"task_id": "task-9", "type": "awaits", "params": {"place": str(other.path)}})
        await other.has_run()
        other.open_gate()
        place.open_gate()
        assert await orchestrator.accepted() == {"run": 1}


async def test_branches_of_a_parallel_job_with_equal_params_are_run_each(orchestrator, worker, place, caplog):
    branches = ["5cbea80f-6827-4086-bf6b-e6bd8354d001", "02ab8ab0-c1a7-48fb-b11f-baf198bca70b"]
    async with running(worker, orchestrator, max_concurrent_tasks=3):
        for branch in branches:
            await orchestrator.again(branch, "awaits", place.path, timestamp=1)
        await place.has_run(2)
        for branch in branches:  # they keep their ids
            await orchestrator.again(branch, "awaits", place.path, timestamp=9)
        await orchestrator.until(lambda: not orchestrator.tasks and orchestrator.polls_held)  # in the one slot left
        assert len(actions(caplog, "task_duplicate")) == 2
        place.open_gate()
        await orchestrator.until(lambda: orchestrator.results().keys() == set(branches))
    assert place.runs == 2
    assert sorted(result["data"]["run"] for result in orchestrator.results().values()) == [1, 2]
    assert not_adopted(caplog)


@pytest.mark.parametrize("other", [{"job_id": "another"}, {"step": 2}, {"params": ...}])
async def test_other_work_is_run_beside_it(orchestrator, worker, place, other):
    if "params" in other:
        other = {"params": {"place": f"{place.path}/."}}
    async with running(worker, orchestrator, max_concurrent_tasks=3):
        await orchestrator.again("task-1", "awaits", place.path)
        await orchestrator.again("task-2", "awaits", place.path, **other)
        await place.has_run(2)
        place.open_gate()


async def test_a_retry_of_an_attempt_that_failed_is_run(orchestrator, worker, place, caplog):
    async with running(worker, orchestrator):
        await orchestrator.again("task-1", "fails_once", place.path)
        await orchestrator.until(lambda: "task-1" in orchestrator.results())
        await orchestrator.again("task-2", "fails_once", place.path)
        assert await orchestrator.accepted() == {"run": 2}
    assert not_adopted(caplog)


async def test_a_retry_of_a_failure_that_is_still_on_its_way_is_run(orchestrator, worker, place):
    orchestrator.down = True
    async with running(worker, orchestrator):
        await orchestrator.again("task-1", "fails_once", place.path)
        await orchestrator.until(lambda: orchestrator.calls["result"])
        await orchestrator.again("task-2", "fails_once", place.path)
        await place.has_run(2)
        orchestrator.down = False
        assert await orchestrator.accepted() == {"run": 2}


@pytest.mark.parametrize("id_", ["task-1", "task-2", JOB])
async def test_a_cancellation_of_any_of_its_ids_stops_it(orchestrator, worker, place, id_, health):
    async with running(worker, orchestrator, **health.settings, heartbeat_interval=0.1):
        await orchestrator.again("task-1", "awaits", place.path)
        await place.has_run()
        await orchestrator.again("task-2", "awaits", place.path)
        await health.until(adopted(1))
        orchestrator.cancelled = [id_]
        await orchestrator.until(lambda: "task-2" in orchestrator.results())
    assert orchestrator.results()["task-2"]["status"] == "cancelled"


async def test_a_cancellation_that_overtakes_the_hand_out_stops_it_too(orchestrator, worker, place):
    async with running(worker, orchestrator, heartbeat_interval=0.1):
        await orchestrator.again("task-1", "awaits", place.path)
        await place.has_run()
        orchestrator.cancelled = ["task-2"]
        seen = len(orchestrator.calls["heartbeat"])
        await orchestrator.until(lambda: len(orchestrator.calls["heartbeat"]) > seen + 1)
        await orchestrator.again("task-2", "awaits", place.path)
        await orchestrator.until(lambda: "task-2" in orchestrator.results())
    assert orchestrator.results()["task-2"]["status"] == "cancelled"


async def test_a_result_that_was_stale_answers_the_hand_out_that_waited_for_a_slot(orchestrator, worker, place, caplog):
    async with running(worker, orchestrator, max_concurrent_tasks=1):  # while it runs, nothing is polled for
        await orchestrator.again("task-1", "awaits", place.path)
        await place.has_run()
        await orchestrator.again("task-2", "awaits", place.path)
        place.open_gate()
        assert await orchestrator.accepted() == {"run": 1}
        assert [call.body["task_id"] for call in orchestrator.calls["result"]] == ["task-1", "task-2"]
    assert place.runs == 1
    assert len(actions(caplog, "task_adopted")) == 1


@pytest.mark.parametrize(("made", "times"), [(-10.0, 1), (60.0, 2)])
async def test_without_steps_only_what_was_handed_out_before_takes_a_stale_result(
    orchestrator, worker, place, made, times, health, caplog
):
    place.open_gate()
    async with running(worker, orchestrator, **health.settings):
        orchestrator.wanted = "another worker's"
        task = {"job_id": JOB, "task_id": "task-1", "type": "awaits", "params": {"place": str(place.path)}}
        await orchestrator.hand_out(task)
        await orchestrator.until(lambda: orchestrator.calls["result"])
        await health.until(lambda shown: not shown["tasks"])  # the answer has come
        assert actions(caplog, "result_ignored")
        await orchestrator.again("task-2", "awaits", place.path, step=None, timestamp=time.time() + made)
        assert await orchestrator.accepted() == {"run": times}


async def test_a_result_on_its_way_is_delivered_under_the_newest_id(orchestrator, worker, place, health):
    place.open_gate()
    orchestrator.down = True
    async with running(worker, orchestrator, **health.settings):
        await orchestrator.again("task-1", "awaits", place.path)
        await orchestrator.until(lambda: orchestrator.calls["result"])
        await orchestrator.again("task-2", "awaits", place.path)
        await health.until(adopted(1))
        orchestrator.down = False
        assert await orchestrator.accepted() == {"run": 1}
    assert place.runs == 1


@pytest.mark.parametrize("last", [2, 7])
async def test_without_steps_a_step_that_overtakes_the_answer_to_the_one_before_is_run(
    orchestrator, worker, place, last, health
):
    """The job goes through the same skill with the same params twice; the second may come several times."""
    place.open_gate()

    async def accept_late():
        for number in range(2, last + 1):
            await orchestrator.again(f"task-{number}", "awaits", place.path, step=None, timestamp=time.time())
        await health.until(adopted(last - 1))
        return Answer(body=b'{"status":"accepted"}')

    orchestrator.script = lambda call: (
        accept_late() if call.kind == "result" and call.number == 1 else orchestrator.answer(call)
    )
    async with running(worker, orchestrator, **health.settings):
        await orchestrator.again("task-1", "awaits", place.path, step=None, timestamp=time.time())
        await orchestrator.until(lambda: f"task-{last}" in orchestrator.results())
    assert orchestrator.results()[f"task-{last}"]["data"] == {"run": 2}
    assert place.runs == 2


async def test_the_newest_is_the_one_that_was_made_last(orchestrator, worker, place, health):
    async with running(worker, orchestrator, **health.settings):
        await orchestrator.again("task-3", "awaits", place.path, timestamp=30)
        await place.has_run()
        for older in (10, 20):
            await orchestrator.again(f"task-{older}", "awaits", place.path, timestamp=older)
        await health.until(adopted(2))
        orchestrator.wanted = "task-3"
        place.open_gate()
        assert await orchestrator.accepted() == {"run": 1}
        assert [call.body["task_id"] for call in orchestrator.calls["result"]] == ["task-3"]


async def test_an_older_id_is_answered_where_the_newest_is_not_wanted(orchestrator, worker, place, health):
    async with running(worker, orchestrator, **health.settings):
        await orchestrator.again("task-1", "awaits", place.path)
        await place.has_run()
        await orchestrator.again("task-2", "awaits", place.path)
        await health.until(adopted(1))
        orchestrator.wanted = "task-1"
        place.open_gate()
        assert await orchestrator.accepted() == {"run": 1}
        assert [call.body["task_id"] for call in orchestrator.calls["result"]] == ["task-2", "task-1"]


@pytest.mark.parametrize("wanted", ["task-1", "another worker's"])
async def test_after_a_restart_a_result_on_disk_answers_the_next_hand_out(
    orchestrator, worker, place, tmp_path, wanted, health
):
    """It may be stale by then: the orchestrator has waited for it in vain."""
    place.open_gate()
    orchestrator.down = True
    state = {"state_dir": str(tmp_path / "state"), "shutdown_timeout": 0.1}
    async with running(worker, orchestrator, **health.settings, **state):
        await orchestrator.again("task-1", "awaits", place.path)
        await orchestrator.until(lambda: orchestrator.calls["result"])
        worker.request_shutdown()
        worker.request_shutdown()  # in haste
    await orchestrator.stop()  # a poll that was dropped would take the next task
    orchestrator.calls["register"].clear()
    await orchestrator.start()
    orchestrator.down, orchestrator.wanted = wanted == "task-1", wanted
    async with running(new_worker(), orchestrator, **health.settings, **state):
        await orchestrator.again("task-2", "awaits", place.path)
        await health.until(adopted(1))
        orchestrator.down = False
        assert await orchestrator.accepted() == {"run": 1}
    assert place.runs == 1


async def test_orchestrators_do_not_share_work(orchestrator, worker, place, caplog):
    async with Timing() as other:
        urls = json.dumps([{"url": each.url, "token": "token"} for each in (orchestrator, other)])
        async with running(worker, orchestrator, orchestrators_config=urls):
            await other.wait_for_worker("w1", 10)
            await orchestrator.again("task-1", "awaits", place.path)
            await place.has_run()
            await other.again("task-2", "awaits", place.path)
            await place.has_run(2)
            place.open_gate()
            await orchestrator.accepted()
            await other.accepted()
    assert not_adopted(caplog)


async def test_what_is_stale_stops_once_a_poll_shows_that_it_went_elsewhere(orchestrator, worker, place, caplog):
    """No release says so up to 1.0b30: their answers to events of stale tasks are good ones."""
    orchestrator.poll_time, orchestrator.event_code = 0.05, "STALE_TASK"
    await orchestrator.again("task-1", "awaits", place.path)
    async with running(worker, orchestrator, max_concurrent_tasks=2):
        await orchestrator.until(lambda: "task-1" in orchestrator.results())
    result = orchestrator.results()["task-1"]
    assert (result["status"], result["error"]["code"]) == ("failure", "TRANSIENT_ERROR")
    assert len(actions(caplog, "task_stale")) == 1


async def test_what_is_stale_goes_on_while_its_hand_out_may_wait_for_a_slot_here(orchestrator, worker, place, caplog):
    orchestrator.poll_time, orchestrator.event_code = 0.05, "STALE_TASK"
    await orchestrator.again("task-1", "awaits", place.path)
    async with running(worker, orchestrator, max_concurrent_tasks=1):
        await orchestrator.until(lambda: len(orchestrator.calls["event"]) > 3)  # one after the other
        assert actions(caplog, "task_stale")
        await orchestrator.again("task-2", "awaits", place.path)
        place.open_gate()
        assert await orchestrator.accepted() == {"run": 1}


async def test_a_skill_may_finish_what_is_stale(orchestrator, worker, place, caplog):
    orchestrator.poll_time, orchestrator.event_code = 0.05, "STALE_TASK"
    await orchestrator.again("task-1", "stubborn", place.path)
    async with running(worker, orchestrator, max_concurrent_tasks=2):
        await orchestrator.until(lambda: len(orchestrator.calls["event"]) > 1)  # the first is answered
        assert actions(caplog, "task_stale")
        seen = len(orchestrator.calls["poll"])
        await orchestrator.until(lambda: len(orchestrator.calls["poll"]) > seen + 3)
        place.open_gate()
        assert await orchestrator.accepted() == {"run": 1}


# ------------------------------------------------------------------------------- while an earlier attempt still stops


@pytest.fixture
def stop(orchestrator, place):
    """Hand out a task and cancel it; it has begun to stop then."""

    async def stopping(skill, task_id="task-1"):
        await orchestrator.again(task_id, skill, place.path)
        await place.has_run()
        orchestrator.cancelled = [task_id]
        await place.until((place.path / "stopping").exists)
        orchestrator.cancelled = []

    return stopping


QUICKLY = {"heartbeat_interval": 0.05, "max_concurrent_tasks": 2}


def both(shown):
    return len(shown["tasks"]) == 2


async def test_another_attempt_waits_until_the_one_that_is_being_stopped_has_ended(
    orchestrator, worker, place, stop, caplog, health
):
    async with running(worker, orchestrator, **health.settings, **QUICKLY):
        await stop("clings")
        await orchestrator.again("task-2", "clings", place.path)
        await health.until(both)
        assert place.runs == 1
        place.open_gate()
        (place.path / "let go").touch()
        assert await orchestrator.accepted() == {"run": 2}
    assert orchestrator.results()["task-1"]["status"] == "cancelled"
    assert not_adopted(caplog)


async def test_another_attempt_waits_no_longer_than_until_the_earlier_one_is_given_up(
    orchestrator, worker, place, stop
):
    async with running(worker, orchestrator, **QUICKLY):
        await stop("is_given_up")
        await orchestrator.again("task-2", "is_given_up", place.path)
        await place.has_run(2)
        await orchestrator.until(lambda: "task-1" in orchestrator.results())  # although its skill still runs
        place.open_gate()
        assert await orchestrator.accepted() == {"run": 2}
        (place.path / "let go").touch()


async def test_an_attempt_that_waits_can_be_cancelled_and_the_next_waits_for_the_first_all_the_same(
    orchestrator, worker, place, stop, health
):
    async with running(worker, orchestrator, **health.settings, **QUICKLY):
        await stop("clings")
        await orchestrator.again("task-2", "clings", place.path)
        await health.until(both)
        orchestrator.cancelled = ["task-2"]
        await orchestrator.until(lambda: "task-2" in orchestrator.results())
        assert orchestrator.results()["task-2"]["status"] == "cancelled"
        orchestrator.cancelled = []
        await orchestrator.again("task-3", "clings", place.path)  # in the slot that task-2 had
        await health.until(both)
        assert place.runs == 1
        place.open_gate()
        (place.path / "let go").touch()
        assert await orchestrator.accepted() == {"run": 2}


async def test_a_hand_out_of_work_that_waits_is_adopted(orchestrator, worker, place, stop, health):
    async with running(worker, orchestrator, **health.settings, **{**QUICKLY, "max_concurrent_tasks": 3}):
        await stop("clings")
        await orchestrator.again("task-2", "clings", place.path)
        await health.until(both)
        await orchestrator.again("task-3", "clings", place.path)
        await health.until(adopted(1))
        place.open_gate()
        (place.path / "let go").touch()
        assert await orchestrator.accepted() == {"run": 2}
    assert place.runs == 2


async def test_the_deadline_of_an_attempt_that_waits_holds(orchestrator, worker, place, stop, caplog):
    async with running(worker, orchestrator, **QUICKLY):
        await stop("clings")
        await orchestrator.again("task-2", "clings", place.path, deadline=time.time() + 0.5)
        await orchestrator.until(lambda: "task-2" in orchestrator.results())
        assert orchestrator.results()["task-2"]["error"]["code"] == "TIMEOUT_ERROR"
        assert actions(caplog, "task_waits")
        (place.path / "let go").touch()
    assert place.runs == 1


async def test_a_shutdown_ends_an_attempt_that_waits(orchestrator, worker, place, stop, caplog, health):
    async with running(worker, orchestrator, **health.settings, **QUICKLY, shutdown_timeout=0.1):
        await stop("clings")
        await orchestrator.again("task-2", "clings", place.path)
        await health.until(both)
        worker.request_shutdown()
        await orchestrator.until(lambda: "task-2" in orchestrator.results())
        assert "task-1" not in orchestrator.results()
        (place.path / "let go").touch()
        await orchestrator.until(lambda: "task-1" in orchestrator.results())
    assert place.runs == 1


@pytest.mark.parametrize("task_id", [JOB, "5cbea80f-6827-4086-bf6b-e6bd8354d001"])
async def test_one_that_keeps_its_id_is_answered_once_by_the_attempt_that_is_being_stopped(
    orchestrator, worker, place, stop, caplog, task_id
):
    """Two results under one id would answer the second hand-out twice."""
    async with running(worker, orchestrator, **QUICKLY):
        await stop("clings", task_id)
        await orchestrator.again(task_id, "clings", place.path)
        await orchestrator.until(lambda: not orchestrator.tasks and orchestrator.polls_held)  # it took no slot
        assert actions(caplog, "task_duplicate")
        (place.path / "let go").touch()
        await orchestrator.until(lambda: task_id in orchestrator.results())
    assert place.runs == 1
    assert len(orchestrator.calls["result"]) == 1


@pytest.mark.parametrize("version", ["1.0b7", "1.0b11", "1.0b17"])
@pytest.mark.parametrize("slots", [1, 4])
async def test_a_task_that_outlives_the_timeout_of_its_orchestrator_runs_once(worker, place, version, slots):
    settings = {"version": version, "rate_limits": None, "task_timeout": 0.4, "poll_time": 0.2}
    async with (
        EmbeddedOrchestrator(PRODUCTION_LIKE, **settings) as orchestrator,
        running(worker, orchestrator, max_concurrent_tasks=slots),
    ):
        job = orchestrator.submit("awaits", {"place": str(place.path)})
        await orchestrator.wait_for(lambda: job.attempts == 2 if slots > 1 else job.failures)
        place.open_gate()
        await job.done()
        assert (job.state, job.result) == (JobState.FINISHED, {"run": 1})
    assert place.runs == 1
