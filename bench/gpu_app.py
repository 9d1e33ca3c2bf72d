"""The skills of ``bench.gpu``: they need PyTorch, which is imported where they run."""

from __future__ import annotations

import os
import time
from typing import Any

from avtomatika_worker import Worker

worker = Worker(worker_type="bench", max_concurrent_tasks=2)


def multiply(size: int, times: int) -> float:
    """Multiply matrices on the device; return the seconds until it was done."""
    import torch

    device = torch.device("cuda:0")
    one = torch.ones(size, size, device=device, dtype=torch.float16)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        one = one @ one / size
    torch.cuda.synchronize()
    return time.perf_counter() - began


@worker.skill(executor="process")
def device() -> dict[str, Any]:
    """Return what this process sees."""
    import torch

    return {
        "pid": os.getpid(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "count": torch.cuda.device_count(),
        "name": torch.cuda.get_device_name(0),
    }


@worker.skill(executor="process", gpus=0.5)
def half_a_device() -> dict[str, Any]:
    """Return what a process sees that shares a device."""
    return device()


@worker.skill(executor="process")
def compute(size: int, times: int) -> dict[str, float]:
    """Multiply matrices."""
    return {"seconds": multiply(size, times)}


@worker.skill(executor="process")
def break_device() -> None:
    """Read behind the end of a tensor on the device: an assertion fails there."""
    import torch

    values = torch.zeros(4, device="cuda:0")
    print(values[torch.tensor([1_000_000], device="cuda:0")])
