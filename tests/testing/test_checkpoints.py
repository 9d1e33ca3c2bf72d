"""A test begins a task with a checkpoint, and looks at the one that it left."""

import pytest

from avtomatika_worker import TaskContext, TransientError, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.testing import SeenCheckpoint, WorkerHarness

VERSIONS = ["1.0b7", "1.0b12", "1.0b17"]


@pytest.fixture
def worker():
    worker = Worker(worker_type="test")

    @worker.skill(version="3")
    async def train(ctx: TaskContext, epochs: int, rate: float = 1.0, fail_at: int | None = None):
        state = await ctx.checkpoint.load() or {"epoch": 0, "done": []}
        for epoch in range(state["epoch"], epochs):
            if epoch == fail_at:
                raise TransientError("no more memory")
            state = {"epoch": epoch + 1, "done": [*state["done"], epoch]}
            await ctx.files.write("weights.txt", str(state["epoch"] * rate))
            await ctx.checkpoint.save(state, files=["weights.txt"])
        return {"done": state["done"], "weights": await ctx.files.read("weights.txt")}

    return worker


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_task_goes_on_from_the_checkpoint_that_the_test_gives_it(worker, version):
    given = SeenCheckpoint({"epoch": 3, "done": ["three"]}, {"weights.txt": b"3.0"})
    params = {"epochs": 4, "rate": 2.0, "fail_at": None}
    async with (
        EmbeddedOrchestrator(version=version, max_attempts=1) as orchestrator,
        WorkerHarness(worker, orchestrator=orchestrator) as h,
    ):
        result = await h.run("train", params, checkpoint=given)
        assert result.data == {"done": ["three", 3], "weights": "8.0"}
        assert result.checkpoint is None
        done = await h.run("train", {"epochs": 3}, checkpoint=SeenCheckpoint({"epoch": 3, "done": []}, given.files))
        assert done.data == {"done": [], "weights": "3.0"}


async def test_what_a_failed_task_left_is_seen_and_goes_into_the_next(worker):
    async with WorkerHarness(worker, settings={"checkpoint_interval": 0}) as h:
        failed = await h.run("train", {"epochs": 4, "fail_at": 2})
        assert failed.error.message == "no more memory"
        assert failed.checkpoint == SeenCheckpoint({"epoch": 2, "done": [0, 1]}, {"weights.txt": b"2.0"})
        result = await h.run("train", {"epochs": 4}, checkpoint=failed.checkpoint)
    assert result.data == {"done": [0, 1, 2, 3], "weights": "4.0"}


async def test_retries_of_the_embedded_orchestrator_go_on_by_themselves(worker, tmp_path):
    attempts = []

    @worker.skill
    def count(ctx: TaskContext):
        loop = ctx.resumable(range(5))
        for number in loop:
            attempts.append(number)
            if attempts.count(number) == 1 and number in {1, 3}:
                raise TransientError("again")

    async with (
        EmbeddedOrchestrator(max_attempts=3) as orchestrator,
        WorkerHarness(worker, orchestrator=orchestrator) as h,
    ):
        result = await h.run("count")
    assert result.ok
    assert attempts == [0, 1, 1, 2, 3, 3, 4]


async def test_nothing_of_it_is_written_to_the_user_s_own_directory(worker, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    async with WorkerHarness(worker) as h:
        await h.run("train", {"epochs": 2, "fail_at": 1})
    assert list(tmp_path.iterdir()) == []
