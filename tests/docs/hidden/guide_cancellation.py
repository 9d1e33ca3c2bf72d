from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        task = h.submit("stream", {"seconds": 60})
        await task.wait_for_progress()
        task.cancel()
        assert (await task.result()).status == "cancelled"
        assert names["cleaned"] == ["requested"]
        task = h.submit("count")
        await task.wait_for_progress()
        task.cancel()
        assert (await task.result()).status == "cancelled"
