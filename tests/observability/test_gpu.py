"""GPUs: reported through NVML if it is installed, and none if it is not."""

import json
import subprocess
import sys

NVML = """
class NVMLError(Exception):
    pass

class _Numbers:
    total, used, gpu = 24 * 2**30, 6 * 2**30, 35

def nvmlInit():
    if {broken}:
        raise NVMLError("driver not loaded")

def nvmlDeviceGetCount():
    return 2

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetName(handle):
    return b"Test 4090" if handle else "Test 4090"

def nvmlDeviceGetMemoryInfo(handle):
    return _Numbers

def nvmlDeviceGetUtilizationRates(handle):
    if handle:
        raise NVMLError("the GPU is lost")
    return _Numbers
"""
REPORT = """
import json, sys
import msgspec
from avtomatika_worker.observability.host import detect_host
from avtomatika_worker.observability.usage_meter import UsageMeter
print(json.dumps(msgspec.to_builtins([detect_host().devices, UsageMeter().measure().devices_usage])))
"""


MEMORY = """
import json
from avtomatika_worker.observability.memory import MemoryMeter
reading = MemoryMeter()()
print(json.dumps([reading.host > 2**20, reading.device]))
"""


def reported(tmp_path, nvml, program=REPORT):
    """Return what a process reports that has this for NVML's module."""
    (tmp_path / "pynvml.py").write_text(nvml)
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_memory_in_use_on_all_gpus_is_read(tmp_path):
    assert reported(tmp_path, NVML.replace("{broken}", "False"), MEMORY) == [True, 2 * 6 * 2**30]
    assert reported(tmp_path, NVML.replace("{broken}", "True"), MEMORY) == [True, 0]


def test_gpus_are_announced_and_their_load_is_reported(tmp_path):
    devices, usage = reported(tmp_path, NVML.replace("{broken}", "False"))
    assert [(each["id"], each["model"], each["properties"]) for each in devices] == [
        ("gpu-0", "Test 4090", {"vram_gb": 24.0, "memory_gb": 24.0}),
        ("gpu-1", "Test 4090", {"vram_gb": 24.0, "memory_gb": 24.0}),
    ]
    assert usage == [{"unit_id": "gpu-0", "load_percent": 35.0, "metrics": {"vram_used_gb": 6.0}}]


def test_without_a_driver_or_the_extra_there_are_none(tmp_path):
    assert reported(tmp_path, NVML.replace("{broken}", "True")) == [[], None]
    assert reported(tmp_path, "raise ImportError") == [[], None]
