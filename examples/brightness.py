"""NumPy arrays in batches: how bright pictures are.

pip install numpy
worker call --app brightness:worker brightness '{"pixels": [[0, 255], [128, 128]]}'
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avtomatika_worker import Batch, Worker

worker = Worker(worker_type="brightness")


@worker.skill(batch=Batch(max_size=64))
def brightness(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return how bright a picture is, from 0 to 1."""
    rows = pixels.reshape(len(pixels), -1)  # the first axis is the batch
    means: NDArray[np.float64] = rows.mean(axis=1)
    return means / 255
