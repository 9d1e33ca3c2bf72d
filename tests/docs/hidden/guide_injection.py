from avtomatika_worker import Worker
from avtomatika_worker.testing import WorkerHarness


async def after(names):
    worker = names["worker"]
    for name in ("report", "everything", "old_style", "summarize"):
        worker.skill(names[name])
    async with WorkerHarness(worker) as h:
        report = await h.run("report", {"title": "Q3"}, priority=2)
        assert report.data == {"priority": 2.0, "files": ["report.txt"]}
        given = (await h.run("everything", {"a": 1})).data["given"]
        assert {"task_id", "send_event", "deadline"} <= set(given)
        assert (await h.run("old_style")).progress[0].fraction == 0.5
        assert (await h.run("summarize", {"text": "a b c"})).costs["tokens"] == 3
        assert (await h.run("search", {"term": "te"})).data == {"result": ["tea"]}
        assert (await h.run("price", {"article": "tea"})).data == {"result": 450}
    assert isinstance(worker, Worker)
