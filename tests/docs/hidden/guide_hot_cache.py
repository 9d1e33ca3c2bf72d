from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert "vit-large" in (await h.run("caption", {"url": "cat.jpg"})).data["result"]

        def hot():
            return any("vit-large" in str(each.message.get("hot_cache")) for each in h.orchestrator.requests)

        worker = h.orchestrator.workers["test-worker"]
        await h.orchestrator.wait_for(lambda: "caption" in str(vars_of(worker)), timeout=10)
        assert (await h.run("unload", {"name": "vit-large"})).ok


def vars_of(worker):
    return {name: getattr(worker, name, None) for name in dir(worker) if "hot" in name}
