from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        captioned = await h.run("caption", {"picture": "cat.jpg"})
        assert captioned.data == {"result": "vit-large saw cat.jpg"}
        assert captioned.progress[0].message == "loading vit-large"
