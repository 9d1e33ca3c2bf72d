from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert (await h.run("count", {"text": "two words"})).data == {"words": 2, "letters": 8}
        translated = await h.run("translate", {"text": "tea"})
        assert (translated.status, translated.data) == ("needs_review", {"text": "tea (de)"})
        assert (await h.run("area", {"width": 2, "height": 3})).data == {"result": 6}
        assert (await h.run("area", {"width": 0})).error.details["errors"][1]["path"] == "$.height"
        assert (await h.run("distance", {"a": {"x": 0, "y": 0}, "b": {"x": 3, "y": 4}})).data == {"result": 5.0}
        assert (await h.run("keys", {"b": 1, "a": 2})).data == {"result": ["a", "b"]}
