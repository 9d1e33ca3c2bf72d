from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert (await h.run("convert", {"pages": 3})).progress[-1].message == "page 3 of 3"
        watched = await h.run("watch", {"lines": ["fine", "an error"]})
        assert [each.type for each in watched.events] == ["line", "line", "alert"]
        assert len((await h.run("watch_in_a_thread", {"lines": ["a", "b"]})).events) == 2
        assert (await h.run("careful")).data == {"sent": False}
