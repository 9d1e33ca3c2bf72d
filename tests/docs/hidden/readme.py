from avtomatika_worker.testing import WorkerHarness


async def after(names):
    worker = names["worker"]
    assert worker.skills.get("rate").contract.cost == 0.5
    async with WorkerHarness(worker) as h:
        assert (await h.run("resize", {"width": 1, "height": 2, "url": "u"})).data == {"result": "ok"}
        rated = await h.run("rate", {"url": "u"})
        assert (rated.status, rated.data) == ("needs_review", {"score": 0.7})
        assert rated.event("alert").payload == {"url": "u"}
