from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        counted = await h.run("count_words", {"text": "two words"})
        assert counted.data == {"result": 2}
        assert counted.progress[0].message == "counting"
        assert (await h.run("count_words", {})).error.code == "INVALID_INPUT_ERROR"
