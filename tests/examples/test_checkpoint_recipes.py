"""The recipes for checkpoints give the same result however often their worker fails, each where its library is."""

import sys
from pathlib import Path

import pytest

from avtomatika_worker import Checkpoint, TransientError
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.testing import WorkerHarness

EXAMPLES = Path(__file__).parents[2] / "examples" / "checkpoints"
RECIPES = [
    ("growing_file", None, "squares", {"rows": 12}),
    ("numpy_walk", "numpy", "walk", {"steps": 12}),
    ("torch_training", "torch", "train", {"epochs": 12}),
]


class Interruptions:
    """A middleware that ends an attempt at its third save, as often as it takes."""

    def __init__(self):
        self.attempts = 0

    async def __call__(self, ctx, call_next):
        self.attempts += 1
        save, saves = Checkpoint.save, 0

        def interrupted(checkpoint, *args, **kwargs):
            nonlocal saves
            saves += 1
            saved = save(checkpoint, *args, **kwargs)
            if saves == 3:
                raise TransientError("interrupted")
            return saved

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoint, "save", interrupted)
            return await call_next(ctx)


@pytest.mark.parametrize(("name", "library", "skill", "params"), RECIPES, ids=[each[0] for each in RECIPES])
async def test_the_result_is_the_same_however_often_it_is_interrupted(monkeypatch, name, library, skill, params):
    if library is not None:
        pytest.importorskip(library, exc_type=ImportError)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, name, raising=False)
    worker = __import__(name).worker
    settings = {"checkpoint_interval": 0}
    async with WorkerHarness(worker, settings=settings) as h:
        expected = await h.run(skill, params)
        assert expected.ok, expected.error
    interruptions = Interruptions()
    worker.add_middleware(interruptions)
    async with (
        EmbeddedOrchestrator(max_attempts=20) as orchestrator,
        WorkerHarness(worker, settings=settings, orchestrator=orchestrator) as h,
    ):
        result = await h.run(skill, params)
    assert result.data == expected.data
    assert interruptions.attempts >= 4
    del sys.modules[name]
