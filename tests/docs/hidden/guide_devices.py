import importlib
import os
from unittest.mock import patch

from avtomatika_worker.testing import WorkerHarness


async def after(names):
    one = importlib.import_module("app.main")
    async with WorkerHarness(one.worker) as h:
        assert (await h.run("where")).data == {"device": one.DEVICE}
    with patch.dict(os.environ, CUDA_VISIBLE_DEVICES="0,1"):
        async with WorkerHarness(importlib.import_module("app.media").worker) as h:
            assert (await h.run("caption", {"picture": "a cat"})).data["devices"] in {"0", "1"}
            assert (await h.run("train", {"dataset": "cats"})).data == {"devices": "0,1"}
