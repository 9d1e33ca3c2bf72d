"""A module in place of NVML's, with GPUs that are not there: put its directory on a process's PYTHONPATH."""

SOURCE = """
from types import SimpleNamespace as _Facts

GPUS = {gpus!r}


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


def nvmlInit():
    if GPUS is None:
        raise NVMLError("driver not loaded")


def nvmlDeviceGetCount():
    return len(GPUS)


def nvmlDeviceGetHandleByIndex(index):
    return GPUS[index]


def nvmlDeviceGetUUID(handle):
    return handle["uuid"]


def nvmlDeviceGetName(handle):
    return handle.get("name", "Test 4090")


def nvmlDeviceGetMemoryInfo(handle):
    gib = handle.get("memory", (24, 6))
    return _Facts(total=gib[0] * 2**30, used=gib[1] * 2**30)


def nvmlDeviceGetUtilizationRates(handle):
    if "load" not in handle:
        raise NVMLError("the GPU is lost")
    return _Facts(gpu=handle["load"])


def nvmlDeviceGetMigMode(handle):
    if "parts" not in handle:
        raise NVMLError_NotSupported()
    return [1, 1]


def nvmlDeviceGetMaxMigDeviceCount(handle):
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle, index):
    if index not in handle["parts"]:
        raise NVMLError("not found")
    return handle["parts"][index]
"""

BROKEN = None
"""In place of a list of GPUs: the driver is not loaded."""


def put_nvml(directory, gpus):
    """Write the module to ``directory``. A GPU is a dict with ``uuid`` and, if known, ``load`` and others."""
    directory.mkdir(exist_ok=True)
    (directory / "pynvml.py").write_text(SOURCE.replace("{gpus!r}", repr(gpus)), "utf-8")
    return {"PYTHONPATH": str(directory)}
