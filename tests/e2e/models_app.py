"""A worker with five models and room for two, announced by model: each result says whether its model was loaded."""

import os
import threading
import time

from avtomatika_worker import Worker

PREFIX = os.environ.get("SKILL_PREFIX", "")
NAMES = ["ada", "bob", "cyd", "dee", "eve"]
WARM_UP = os.environ.get("WARM_UP", "").split()

worker = Worker(worker_type="e2e")


class Model:
    """Knows how often it was used, and whether it is unloaded while it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.uses = self.users = 0
        self.is_loaded = True


def unload(model: Model) -> None:
    model.is_loaded = False


@worker.model(max_loaded=2, names=NAMES, announce="per_model", warm_up=WARM_UP, unload=unload)
def load(name: str) -> Model:
    time.sleep(0.05)
    return Model(name)


@worker.skill(f"{PREFIX}caption", model_from="checkpoint")
def caption(checkpoint: str, model: Model) -> dict[str, str | bool]:
    with model.lock:
        model.uses += 1
        first = model.uses == 1
    time.sleep(0.01)
    return {
        "asked": checkpoint,
        "got": model.name,
        "warm": not first,
        "loaded": model.is_loaded,
        "worker": os.environ["WORKER_ID"],
    }
