"""Skills in processes of their own: what they are given, and what they give back."""

import asyncio
import os

import psutil
import pytest

from avtomatika_worker import Worker
from avtomatika_worker.testing import WorkerHarness
from processes.conftest import until


def beats_of(h):
    return [call.json for call in h.orchestrator.requests if call.call == "heartbeat"] or [{}]


# ---------------------------------------------------------------------------------------------- in and out


@pytest.mark.parametrize("skill", ["add_up", "add_up_slowly"])
async def test_a_skill_runs_in_another_process_with_typed_input_and_output(h, skill):
    result = await h.run(skill, {"numbers": [1, 2, 39]})
    assert result.status == "success"
    assert result.data["total"] == 42
    assert result.data["pid"] != os.getpid()
    assert psutil.Process(result.data["pid"]).parent().ppid() == os.getpid()  # its guard is between


async def test_processes_are_kept_and_run_one_task_at_a_time(h):
    results = await asyncio.gather(*(h.run("add_up", {"numbers": [each]}) for each in range(20)))
    assert [each.data["total"] for each in results] == list(range(20))
    assert len({each.data["pid"] for each in results}) <= 2


async def test_wrong_input_is_found_in_the_process(h):
    result = await h.run("add_up", {"numbers": ["one"]})
    assert (result.error.code, result.error.details["path"]) == ("INVALID_INPUT_ERROR", "$.numbers[0]")


async def test_the_context_works_as_elsewhere(h, caplog):
    task = h.submit("describe", {}, priority=3.0, metadata={"tenant": "a"})
    result = await task.result()
    assert result.data["answers"] == [True, False, False]
    ids = ["describe", task.job.task_id, task.job.job_id, "test-worker"]
    assert result.data["context"] == [*ids, 3.0, {"tenant": "a"}]
    assert [(each.type, each.payload) for each in result.events] == [("found", {"level": 3})]
    assert [each.message for each in result.progress] == ["half"]
    assert result.costs["tokens"] == 12
    blocked = [each.getMessage() for each in caplog.records if getattr(each, "action", "") == "event_blocked"]
    assert [text.partition(": ")[2] for text in blocked] == [
        "it violates its schema: payload.level: is required",
        "it is not declared (declared: found)",
    ]
    await until(lambda: beats_of(h)[-1].get("hot_skills") == ["describe"])


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("permanent", "PERMANENT_ERROR", "broken for good"),
        ("input", "INVALID_INPUT_ERROR", "not this one"),
        ("any", "TRANSIENT_ERROR", "ZeroDivisionError: by zero"),
        ("object", "CONTRACT_VIOLATION_ERROR", "the result cannot be sent: $.deep[0].thing: object is not JSON-able"),
        ("lambda", "CONTRACT_VIOLATION_ERROR", "the result cannot be sent: $: function is not JSON-able"),
        ("text", "CONTRACT_VIOLATION_ERROR", "the result cannot leave its process: $.data.text: "),
    ],
)
async def test_failures_keep_their_codes_and_say_what_cannot_be_sent(h, how, code, message):
    result = await h.run("fail", {"how": how})
    assert result.error.code == code
    assert result.error.message.startswith(message)
    assert result.error.details.get("part") == (7 if how == "permanent" else None)


async def test_a_failed_task_leaves_nothing_of_its_frames_in_the_process(h):
    for skill in ("fail_with_a_load", "fail_with_a_load_on_a_loop"):
        assert not (await h.run(skill)).ok
    assert (await h.run("loads_left")).data == {"were": 2, "are": 0}


async def test_an_event_that_cannot_be_sent_is_answered_false_and_the_skill_goes_on(h, caplog):
    result = await h.run("send_what_cannot_be_sent")
    sent = [name for name, answer in result.data.items() if answer]
    assert sorted(sent) == ["good", "progress"]
    assert [each.payload for each in result.events] == [{"v": 1}]
    assert [each.message for each in result.progress] == ["caf?"]
    blocked = [each.getMessage() for each in caplog.records if getattr(each, "action", "") == "event_blocked"]
    assert len(blocked) == 6
    assert sum(" not sent: it cannot be sent: payload.v" in each for each in blocked) == 5


async def test_log_records_of_the_process_reach_the_workers_handlers(h, caplog):
    caplog.set_level("WARNING", "tests.app")
    task = h.submit("fail", {"how": "any"})
    await task.result()
    (record,) = [each for each in caplog.records if each.name == "tests.app"]
    assert record.getMessage() == "failing as any"
    assert (record.levelname, record.action, record.level_of_it) == ("WARNING", "failing", 3)
    assert record.odd.startswith("<object object at")
    assert (record.task_id, record.job_id, record.worker_id) == (task.job.task_id, task.job.job_id, "test-worker")
    assert (record.funcName, record.process != os.getpid()) == ("fail", True)
    (failed,) = [each for each in caplog.records if getattr(each, "action", "") == "task_failed"]
    assert "ZeroDivisionError: by zero" in failed.exc_text
    assert "process_app.py" in failed.exc_text
    assert "child.py" not in failed.exc_text  # frames of the package are folded
    assert [each for each in caplog.records if "ZeroDivisionError" in each.getMessage()] == [failed]


@pytest.mark.parametrize(
    ("params", "status", "code", "message"),
    [
        ({"value": {"status": "failure", "error": "no", "details": 1}}, "failure", "TRANSIENT_ERROR", "no"),
        ({"value": {"status": "failed", "error": "disk full"}}, "failure", "CONTRACT_VIOLATION_ERROR", "disk full"),
        ({"value": {"status": "needs_review", "data": {}}}, "needs_review", None, ""),
        ({"value": {"status": "cancelled", "message": "enough"}}, "cancelled", None, ""),
        ({"kind": "generator"}, "failure", "CONTRACT_VIOLATION_ERROR", "generator is not JSON-able"),
        ({"kind": "error"}, "failure", "PERMANENT_ERROR", "never"),
        ({"kind": "coroutine"}, "success", None, ""),
    ],
    ids=str,
)
async def test_the_result_of_a_skill_is_read_in_a_process_as_anywhere(h, params, status, code, message):
    result = await h.run("answers", params)
    assert (result.status, result.error and result.error.code) == (status, code)
    assert message in (result.error.message if result.error else "")


async def test_a_typed_dict_is_data_there_too(h):
    assert (await h.run("ticket")).data == {"status": "failure", "title": "x"}


async def test_messages_of_a_thread_after_its_task_ended_are_not_attributed_to_the_next_one(h, tmp_path):
    said = tmp_path / "said"
    pid = (await h.run("leaves_a_thread", {"said": str(said)})).data["pid"]
    task = h.submit("polite", {})
    assert (await task.wait_for_event("started")).payload["pid"] == pid
    await until(said.exists)
    task.cancel()  # its end comes after the progress
    await task.result()
    assert task.progress == ()


# ---------------------------------------------------------------------------------------------- files


async def test_a_path_in_the_params_is_a_file_of_the_task_there_too(h):
    assert (await h.run("read", {"source": h.store("a.txt", "hello")})).data == {"result": "hello"}
    refused = await h.run("read", {"source": "/etc/passwd"})
    assert (refused.error.code, refused.error.details["param"]) == ("INVALID_INPUT_ERROR", "source")


async def test_files_are_written_there_and_moved_by_the_worker(h, tmp_path):
    result = await h.run("with_files", {})
    assert result.status == "success", result.error
    stored = list((tmp_path / "store").rglob("kept.txt"))
    assert [each.read_text("utf-8") for each in stored] == [result.data["read"]]
    assert result.data["listed"] == ["again.txt", "out/report.txt"]
    assert result.data["path"].startswith("file://")  # a path in the result was uploaded
    assert not list((tmp_path / "files").glob("run-*/*")), "the task's directory stayed behind"


async def test_files_of_an_async_skill_come_and_go(h, tmp_path):
    source = tmp_path / "store" / "in.txt"
    source.parent.mkdir(exist_ok=True)
    source.write_text("hello", "utf-8")
    result = await h.run("with_files_async", {"source": source.as_uri()})
    assert result.status == "success", result.error
    assert "missing.txt" in result.data["missing"]
    (copy,) = (tmp_path / "store").rglob("copy.txt")
    assert copy.read_text("utf-8") == "HELLO"


# ---------------------------------------------------------------------------------------------- middlewares


async def test_middlewares_stay_in_the_worker_and_may_change_params(app):
    worker = Worker(worker_type="test")
    worker.include_blueprint(app.skills)
    seen = []

    @worker.add_middleware
    async def another(ctx, call_next):
        ctx.params = {"numbers": [100]} if ctx.params["numbers"] else {"numbers": object()}
        outcome = await call_next(ctx)
        seen.append((os.getpid(), type(outcome).__name__))
        return outcome

    async with WorkerHarness(worker) as h:
        assert (await h.run("add_up", {"numbers": [1]})).data["total"] == 100
        result = await h.run("add_up", {"numbers": []})
    assert result.error.code == "INTERNAL_ERROR"
    assert "did a middleware change it?" in result.error.message
    assert seen[0] == (os.getpid(), "Succeeded")


async def test_state_stays_in_the_worker_and_metadata_does_not(app):
    worker = Worker(worker_type="test")
    worker.include_blueprint(app.skills)

    @worker.add_middleware
    async def hands_on(ctx, call_next):
        ctx.state.user = "Ada"
        ctx.metadata["user"] = "Ada"
        return await call_next(ctx)

    async with WorkerHarness(worker) as h:
        assert (await h.run("handed_on")).data == {"state": "TaskState()", "metadata": {"user": "Ada"}}
