from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        greeted = await h.run("greet", {"name": "Ada"}, metadata={"tenant": "a"})
        assert greeted.data == {"text": "Hello, Ada!", "worker": "test-worker"}
        refused = await h.run("greet", {"name": "Ada"})
        assert refused.error.code == "SECURITY_ERROR"
    assert names["seconds"]["greet"] > 0
