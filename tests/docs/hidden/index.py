from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert (await h.run("count_words", {"text": "a word more"})).data == {"result": 3}
        assert (await h.run("count_words", {})).error.code == "INVALID_INPUT_ERROR"
