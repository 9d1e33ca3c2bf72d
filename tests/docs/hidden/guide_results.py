from avtomatika_worker.errors import TASK_ERRORS
from avtomatika_worker.testing import WorkerHarness
from docs.blocks import ROOT


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert (await h.run("price", {"pieces": 2})).data == {"cents": 900}
        assert (await h.run("total", {"cents": [1, 2]})).data == {"result": 3}
        review = await h.run("rate", {"score": 0.1}, metadata={"from": "a client"})
        assert (review.status, review.metadata["model"]) == ("needs_review", "v2")
        assert (await h.run("rate", {"score": 2})).error.code == "INVALID_INPUT_ERROR"
        assert (await h.run("rate", {"score": 0.9})).costs["tokens"] == 12
        assert (await h.run("fetch", {"url": "ftp:"})).error.details == {"url": "ftp:"}
        assert (await h.run("fetch", {"url": "https://a"})).error.code == "TRANSIENT_ERROR"
    page = (ROOT / "docs/guide/results.md").read_text("utf-8")
    for code, error in TASK_ERRORS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{error.__name__}`"))
        assert f"`{code}`" in row
        assert ("tries again" in row) == error.retryable
