"""One skill at a time, through the whole pipeline."""

from shop import Order, worker

from avtomatika_worker.testing import WorkerHarness


async def test_ten_pieces_are_cheaper():
    async with WorkerHarness(worker) as h:
        result = await h.run("price", Order("tea", 10))
    assert result.status == "success"
    assert result.data == {"cents": 4050}
    assert result.event("discount").payload == {"percent": 10}


async def test_an_unknown_article_is_the_callers_mistake():
    async with WorkerHarness(worker) as h:
        result = await h.run("price", {"article": "coffee"})
    assert result.error.code == "INVALID_INPUT_ERROR"
    assert result.error.details["article"] == "coffee"


async def test_params_are_checked_before_the_skill_runs():
    async with WorkerHarness(worker) as h:
        result = await h.run("price", {"article": "tea", "pieces": "many"})
    assert "params.pieces" in result.error.message


async def test_packing_can_be_cancelled(worker_harness):  # the same with the fixture: nothing to indent
    h = await worker_harness(worker, settings={"max_concurrent_tasks": 1})
    task = h.submit("pack", {"pieces": 10_000})
    await task.wait_for_progress()
    task.cancel()
    assert (await task.result()).status == "cancelled"


async def test_packing_has_a_deadline(worker_harness):
    h = await worker_harness(worker)
    result = await h.run("pack", {"pieces": 10_000}, deadline_in=0.1)
    assert result.error.code == "TIMEOUT_ERROR"
