"""What the page's first examples leave out."""

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.testing import WorkerHarness


@dataclass
class Puzzle:
    text: str


@dataclass
class Solution:
    text: str


@dataclass
class Prediction:
    text: str


class Database:
    def weights(self):
        return "weights"


class Model:
    @classmethod
    def load(cls, weights):
        assert weights == "weights"
        return cls()


@contextlib.asynccontextmanager
async def connect(dsn):
    assert dsn == "here"
    yield Database()


def before():
    os.environ["DSN"] = "here"
    shown = (AsyncIterator, Database, Model, Prediction, Puzzle, Solution, TaskContext)
    return {**{each.__name__: each for each in shown}, "connect": connect, "os": os}


async def after(names):
    worker = Worker()  # without `solve`: a process would have to import it from the page
    for resource in (names["database"], names["model"]):
        worker.resource(resource)
    worker.skill(names["predict"])
    async with WorkerHarness(worker) as h:
        assert (await h.run("predict", {"text": "a"})).error.code == "CONTRACT_VIOLATION_ERROR"  # its body is "..."
