from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert (await h.run("translate", {"text": "a", "pair": "en-de"})).data == {"result": "a"}
        assert h.models == ("en-de",)
        assert (await h.run("rate", {"text": "a", "language": "nl"})).error.code == "INVALID_INPUT_ERROR"
