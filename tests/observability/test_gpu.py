"""GPUs: reported through NVML if it is installed, none if it is not, and only those that this process may use."""

import json
import subprocess
import sys

import pytest

from observability.nvml import BROKEN, put_nvml

REPORT = """
import json, sys
import msgspec
from avtomatika_worker.observability.gpu import Gpus
from avtomatika_worker.observability.host import detect_host
from avtomatika_worker.observability.usage_meter import UsageMeter
meter = UsageMeter()
found = [detect_host().devices, meter.measure().devices_usage, meter.shares().device]
print(json.dumps(msgspec.to_builtins(found)))
"""

TWO = [
    {"uuid": "GPU-aaaa-1", "name": "Test 4090", "load": 35},
    {"uuid": b"GPU-aabb-2", "name": b"Test 4090", "memory": (24, 18)},
]
PARTS = {0: {"uuid": "MIG-cccc-1", "memory": (10, 1)}, 2: {"uuid": "MIG-cccd-2", "memory": (10, 9)}}

MEMORY = """
import json
from avtomatika_worker.observability.memory import MemoryMeter
reading = MemoryMeter()()
print(json.dumps([reading.host > 2**20, reading.device]))
"""


def reported(tmp_path, gpus, program=REPORT, **environment):
    """Return what a process reports of these GPUs."""
    if gpus is ImportError:
        (tmp_path / "pynvml.py").write_text("raise ImportError")
        environment["PYTHONPATH"] = str(tmp_path)
    else:
        environment |= put_nvml(tmp_path, gpus)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_memory_in_use_on_all_gpus_is_read(tmp_path):
    assert reported(tmp_path, TWO, MEMORY) == [True, (6 + 18) * 2**30]
    assert reported(tmp_path, BROKEN, MEMORY) == [True, 0]


def test_gpus_are_announced_and_their_load_is_reported(tmp_path):
    devices, usage, memory = reported(tmp_path, TWO)
    assert [(each["id"], each["model"], each["properties"]) for each in devices] == [
        ("gpu-0", "Test 4090", {"vram_gb": 24.0, "memory_gb": 24.0}),
        ("gpu-1", "Test 4090", {"vram_gb": 24.0, "memory_gb": 24.0}),
    ]
    assert usage == [{"unit_id": "gpu-0", "load_percent": 35.0, "metrics": {"vram_used_gb": 6.0}}]
    assert memory == 75.0  # where it is highest


def test_without_a_driver_or_the_extra_there_are_none(tmp_path):
    assert reported(tmp_path, BROKEN) == [[], None, 0.0]
    assert reported(tmp_path, ImportError) == [[], None, 0.0]


@pytest.mark.parametrize(
    ("variable", "units"),
    [
        ("1", ["gpu-1"]),
        ("1,0", ["gpu-1", "gpu-0"]),
        ("GPU-aabb", ["gpu-1"]),
        ("GPU-aaaa-1, 1", ["gpu-0", "gpu-1"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["gpu-0"]),
        ("0,7,1", ["gpu-0"]),
        ("NoDevFiles", []),
    ],
)
def test_what_cuda_hides_from_the_process_is_not_announced(tmp_path, variable, units):
    devices, _, memory = reported(tmp_path, TWO, CUDA_VISIBLE_DEVICES=variable)
    assert [each["id"] for each in devices] == units
    assert memory == max([{"gpu-0": 25.0, "gpu-1": 75.0}[each] for each in units], default=0.0)


@pytest.mark.parametrize(
    ("variable", "units"),
    [
        (None, ["gpu-0-mig-0", "gpu-0-mig-2", "gpu-1"]),
        ("MIG-cccd-2", ["gpu-0-mig-2"]),
        ("0", ["gpu-0-mig-0"]),
    ],
)
def test_a_partitioned_gpu_is_its_instances(tmp_path, variable, units):
    gpus = [{"uuid": "GPU-whole", "parts": PARTS}, TWO[1]]
    environment = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    devices, usage, _ = reported(tmp_path, gpus, **environment)
    assert [each["id"] for each in devices] == units
    assert usage is None  # nobody knows the load of an instance
