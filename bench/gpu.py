"""What a machine with GPUs does: ``python -m bench.gpu``, a few minutes. It needs PyTorch with CUDA.

- Which devices are found, and that a process which is given one sees that one only, by its environment or by ``gpus``.
- What a task costs beside its computing: the same multiplications by themselves, and as tasks.
- That a process whose device is broken is replaced, and the next task computes.

Writes ``results/gpu-<devices>.json``; with ``--quick`` nothing, after fewer tasks. Where there is no GPU, it says so
and exits with 0: there is nothing to measure. Where there is one that PyTorch cannot use, it exits with 2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from avtomatika_worker.observability.devices import Accelerator, NoDeviceError, accelerators
from avtomatika_worker.observability.gpu import Gpus
from avtomatika_worker.testing import WorkerHarness
from bench.gpu_app import worker
from bench.machine import local_facts, slug
from bench.report import RESULTS

_SIZE: Final = 4096
_TIMES: Final = 20
_TASKS: Final = 50
_FEW: Final = 5
_ALONE: Final = "from bench.gpu_app import multiply; multiply({0}, 1); print([multiply({0}, {1}) for _ in range({2})])"
_SEEN: Final = "import torch; print(torch.cuda.device_count())"


def main() -> None:
    """Measure, print, and write a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="few tasks, and nothing is written: does it work at all?")
    given = parser.parse_args()
    output: Path | None = given.output
    try:
        devices = accelerators(os.environ)
    except NoDeviceError as error:
        print(f"bench.gpu: there is no GPU here, so nothing is measured. {error}")
        return
    if problem := _without_torch():
        print(f"bench.gpu: PyTorch cannot use the GPU: {problem}", file=sys.stderr)
        sys.exit(2)
    found = measured(devices, _FEW if given.quick else _TASKS)
    name = slug(len(devices), found["device"]["name"])
    text = json.dumps({"machine": {"name": name, **local_facts()}, **found}, indent=2)
    print(text)
    if output is None and not given.quick:
        output = RESULTS / f"gpu-{name}.json"
    if output is not None:
        output.write_text(text + "\n", "utf-8")


def measured(devices: tuple[Accelerator, ...], tasks: int) -> dict[str, Any]:
    """Return everything. Raises AssertionError for what is not as it should be."""
    seen = {each.label: int(_run(_SEEN, dict(each.environ)).strip()) for each in devices}
    assert set(seen.values()) == {1}, f"a process that is given one device sees others: {seen}"
    alone: list[float] = json.loads(_run(_ALONE.format(_SIZE, _TIMES, tasks), {}))
    return {
        "devices": msgspec.to_builtins(Gpus().devices()),
        "labels": [each.label for each in devices],
        "seconds_alone": sum(alone),
        **asyncio.run(_as_tasks(tasks)),
    }


async def _as_tasks(tasks: int) -> dict[str, Any]:
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 2, "skill_processes": 1}) as h:
        before = await h.run("device")
        shared = await asyncio.gather(h.run("half_a_device"), h.run("half_a_device"))
        assert {each.data["count"] for each in shared} == {1}, f"with gpus=0.5 a process sees others: {shared}"
        await h.run("compute", {"size": _SIZE, "times": 1})  # the first one loads the libraries
        began = time.perf_counter()
        results = await asyncio.gather(*(h.run("compute", {"size": _SIZE, "times": _TIMES}) for _ in range(tasks)))
        whole = time.perf_counter() - began
        computing = sum(each.data["seconds"] for each in results)
        broken = await h.run("break_device")
        after = await h.run("device")
        assert after.data["pid"] != before.data["pid"], "the process whose device is broken was kept"
        assert (await h.run("compute", {"size": _SIZE, "times": 1})).ok, "no task computes after a broken device"
    return {
        "device": before.data,
        "tasks": tasks,
        "seconds_as_tasks": whole,
        "seconds_computing": computing,
        "device_idle_percent": round(100 * (1 - computing / whole), 2),
        "broken_device": broken.error and {"code": broken.error.code, "message": broken.error.message[:200]},
    }


def _without_torch() -> str:
    code = "import torch; assert torch.cuda.is_available(), 'torch.cuda.is_available() is False'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def _run(code: str, environ: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
