"""A simulation with NumPy that goes on where it was: its array in a file, the random generator in the state."""

import numpy as np

from avtomatika_worker import TaskContext, Worker

worker = Worker(worker_type="simulate")


@worker.skill(version="1")
def walk(ctx: TaskContext, steps: int, walkers: int = 1000) -> dict:
    """Let many walkers take random steps; the result is the same however often it was interrupted."""
    random = np.random.default_rng(0)
    places = np.zeros(walkers)
    file = ctx.files.path_to_sync("places.npy")

    saved = ctx.checkpoint.load()
    if saved is not None:
        places = np.load(file, allow_pickle=False)
        random.bit_generator.state = saved["random"]

    for step in range(saved["step"] if saved else 0, steps):
        ctx.raise_if_cancelled()
        places += random.normal(size=walkers)
        if ctx.checkpoint.due:
            np.save(file, places)
            ctx.checkpoint.save({"step": step + 1, "random": random.bit_generator.state}, files=[file])
    return {"spread": float(places.std())}
