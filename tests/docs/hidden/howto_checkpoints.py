"""The skills of the page go on where they were."""

from avtomatika_worker import TransientError
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.testing import WorkerHarness


def before():
    drawn, learned = [], []

    def draw(frame):
        drawn.append(frame)
        if frame == 3 and drawn.count(3) == 1:
            raise TransientError("once")
        return frame

    async def learn(weights):
        epoch = int(weights.read_text()) + 1 if weights.exists() else 1
        learned.append(epoch)
        if epoch == 3 and learned.count(3) == 1:
            raise TransientError("once")
        weights.write_text(str(epoch))
        return 1 / epoch

    return {"draw": draw, "learn": learn, "drawn": drawn, "learned": learned}


async def after(names):
    settings = {"checkpoint_interval": 0}
    async with (
        EmbeddedOrchestrator(max_attempts=3) as orchestrator,
        WorkerHarness(names["worker"], settings=settings, orchestrator=orchestrator) as h,
    ):
        assert (await h.run("render", {"frames": 5})).data == {"pixels": 10}
        assert names["drawn"] == [0, 1, 2, 3, 3, 4]
        assert (await h.run("train", {"epochs": 4})).data == {"epoch": 4, "loss": 0.25}
        assert names["learned"] == [1, 2, 3, 3, 4]
