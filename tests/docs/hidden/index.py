"""The last worker of the first page adds up, and can be resumed."""

from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert (await h.run("add_up", {"numbers": [1, 2, 3]})).data == {"result": 6}
        assert (await h.run("add_up", {})).error.code == "INVALID_INPUT_ERROR"
