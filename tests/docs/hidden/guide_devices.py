from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert (await h.run("where")).data == {"device": names["DEVICE"]}
