from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        captioned = await h.run("caption", {"picture": h.store("cat.jpg", b"meow")})
        assert captioned.data == {"result": "vit-large saw 4 bytes"}
        worker = h.orchestrator.workers["test-worker"]
        await h.orchestrator.wait_for(lambda: "caption" in (worker.last_heartbeat or {}).get("hot_skills", ()))
