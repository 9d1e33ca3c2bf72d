"""A model that is loaded once in each process, and asked there: nothing that it computes blocks the worker.

pip install scikit-learn
worker dev --app classify:worker
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, NewType

import joblib
from msgspec import Meta
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from avtomatika_worker import Worker

worker = Worker(worker_type="classifier")

Classifier = NewType("Classifier", Pipeline)
Centimeters = Annotated[float, Meta(gt=0, le=30)]


@dataclass
class Flower:
    """Length and width of its leaves, in centimeters."""

    sepal_length: Centimeters
    sepal_width: Centimeters
    petal_length: Centimeters
    petal_width: Centimeters


@dataclass
class Answer:
    """The kind of the flower, and how sure that is, from 0 to 1."""

    kind: str
    certainty: float


@worker.resource
def classifier() -> Classifier:
    """Load the model that ``MODEL_PATH`` names, or train one: it is done before the first task comes."""
    if path := os.environ.get("MODEL_PATH"):
        return Classifier(joblib.load(path))
    flowers = load_iris()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(flowers.data, flowers.target_names[flowers.target])
    return Classifier(model)


@worker.skill(executor="process", timeout=10)
def classify(params: Flower, model: Classifier) -> Answer:
    """Classify an iris by the measures of its leaves."""
    flower = [[params.sepal_length, params.sepal_width, params.petal_length, params.petal_width]]
    certainty = model.predict_proba(flower)[0]
    best = certainty.argmax()
    return Answer(kind=str(model.classes_[best]), certainty=round(float(certainty[best]), 3))


if __name__ == "__main__":
    worker.run()
