"""Shows that the skills of docs/guide/batching.md do what it says."""

from typing import Any

from avtomatika_worker.testing import WorkerHarness


async def after(names: dict[str, Any]) -> None:
    """Run those whose results the page does not show."""
    async with WorkerHarness(names["worker"]) as h:
        texts = [{"text": "one two", "language": "en"}, {"text": "three"}, {"text": ""}]
        counted = await h.run_many("count_words", texts)
        assert [each.data.get("result") for each in counted] == [2, 1, None]
        assert counted[2].error is not None
        assert counted[2].error.message == "invalid input: params: there is no text"
        split = await h.run_many("tokenize", [{"text": "a b", "language": each} for each in ("en", "de", "en")])
        assert [each.data for each in split] == [{"result": ["a", "b"]}] * 3
