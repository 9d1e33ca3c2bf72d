from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert "vit-large" in (await h.run("caption", {"url": "cat.jpg"})).data["result"]
        worker = h.orchestrator.workers["test-worker"]
        await h.orchestrator.wait_for(
            lambda: "caption" in (worker.last_heartbeat or {}).get("hot_skills", ()), timeout=10
        )
        assert (await h.run("unload", {"name": "vit-large"})).ok
        await h.orchestrator.wait_for(
            lambda: "caption" not in (worker.last_heartbeat or {}).get("hot_skills", ()), timeout=10
        )
