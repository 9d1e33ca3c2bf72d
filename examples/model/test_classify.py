"""Tests of the skill with the real model, and with one that says what a test wants to hear."""

import pytest

pytest.importorskip("sklearn")

import numpy as np
from classify import Classifier, worker

from avtomatika_worker.testing import WorkerHarness

SETOSA = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


class Unsure:
    """A model that cannot decide. It is pickled on its way to the process, so it stands at the top of a module."""

    classes_ = np.array(["setosa", "virginica"])

    def predict_proba(self, flowers):
        """Return the same for each flower."""
        return np.full((len(flowers), 2), 0.5)


async def test_a_flower_is_classified():
    async with WorkerHarness(worker) as h:
        result = await h.run("classify", SETOSA)
    assert result.data["kind"] == "setosa"
    assert result.data["certainty"] > 0.9


async def test_a_wrong_measure_is_named():
    async with WorkerHarness(worker) as h:
        result = await h.run("classify", {**SETOSA, "petal_width": -1})
    assert result.error.code == "INVALID_INPUT_ERROR"
    assert "petal_width" in result.error.message


async def test_certainty_comes_from_the_model():
    async with WorkerHarness(worker, resources={Classifier: Unsure()}) as h:
        result = await h.run("classify", SETOSA)
    assert result.data == {"kind": "setosa", "certainty": 0.5}
