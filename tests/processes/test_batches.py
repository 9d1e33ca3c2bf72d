"""Batched skills in processes: what they are given and give back, one bad task, a crash, memory, cancellation."""

import pytest

from avtomatika_worker import Worker
from avtomatika_worker.testing import WorkerHarness


@pytest.fixture
async def h(app, tmp_path):
    worker = Worker(worker_type="test")
    worker.include_blueprint(app.batched)
    settings = {"skill_processes": 1, "file_store_root": str(tmp_path / "store"), "state_dir": str(tmp_path / "state")}
    async with WorkerHarness(worker, settings=settings) as started:
        await started.run("add_up_many", {"numbers": [1]})  # its process is there
        yield started


def many(h, numbers):
    return h.run_many("add_up_many", [{"numbers": [each]} for each in numbers])


async def test_each_task_gets_its_item_events_and_costs(h):
    results = await many(h, range(1, 7))
    assert [each.data["total"] for each in results] == [1, 2, 3, 4, 5, 6]
    assert [each.costs["numbers"] for each in results] == [1] * 6
    sizes = [each.events[0].payload["batch"] for each in results]
    assert max(sizes) > 1
    assert len({each.data["pid"] for each in results}) == 1


async def test_bad_tasks_fail_alone_whether_the_call_or_the_item_says_so(h):
    results = await many(h, [1, 13, 7, 4, 5])
    codes = [each.error and each.error.code for each in results]
    assert codes == [None, "INVALID_INPUT_ERROR", "PERMANENT_ERROR", None, None]
    (wrong,) = await h.run_many("add_up_many", [{"numbers": ["x"]}])
    assert wrong.error.details["path"] == "$.numbers[0]"


async def test_a_task_that_kills_its_process_takes_no_other_with_it(h):
    results = await many(h, [1, 2, 666, 4])
    assert [each.ok for each in results] == [True, True, False, True]
    assert results[2].error.message == "the skill's process ended: signal SIGABRT"


async def test_a_batch_that_runs_out_of_memory_is_run_again_in_smaller_ones(h):
    results = await many(h, [20, 20, 20, 40])
    assert [each.data.get("total") for each in results] == [20, 20, 20, 40]


async def test_a_wrong_number_of_items_fails_all(h):
    results = await h.run_many("miscount", [{"numbers": []}] * 3)
    assert {each.error.code for each in results} == {"CONTRACT_VIOLATION_ERROR"}
    assert all("the batched skill miscount returned" in each.error.message for each in results)


async def test_a_cancelled_task_is_seen_in_the_process_and_the_others_go_on(h):
    tasks = [h.submit("add_up_many", {"numbers": [each]}) for each in (-1, -2)]
    for task in tasks[:1]:
        await task.wait_for_event("size")
        task.cancel()
    assert (await tasks[0].result()).status == "cancelled"
    assert (await tasks[1].result()).data["total"] == -2


async def test_a_batch_has_one_model_of_its_process(h):
    names = ["x", "y", "x", "broken", "y", "broken"]
    results = await h.run_many("sing_together", [{"text": "la", "voice": name} for name in names])
    assert [each.data["by"] if each.ok else each.error.message for each in results] == [
        "x",
        "y",
        "x",
        "ModelLoadError: model 'broken' cannot be loaded by load_voice: OSError: no such voice",
        "y",
        "ModelLoadError: model 'broken' cannot be loaded by load_voice: OSError: no such voice",
    ]
    assert all(each.data["same"] for each in results if each.ok)
    assert h.models == ()


async def test_a_model_of_lists_is_made_in_the_process(h):
    good, bad, other = await h.run_many(
        "add_columns", [{"rows": [1, 2], "more": 3}, {"rows": 1, "more": 2}, {"rows": [], "more": 4}]
    )
    assert (good.data, other.data) == ({"result": 6}, {"result": 4})
    assert (bad.error.code, bad.error.details["path"]) == ("INVALID_INPUT_ERROR", "$.rows")
