"""NVIDIA GPUs, through NVML (extra ``[gpu]``). Without the extra, the driver or a GPU, there are none."""

from __future__ import annotations

import importlib
import logging
from typing import Any, Final

from avtomatika_worker.protocol.messages import DeviceUsage, HardwareDevice

_log: Final = logging.getLogger("avtomatika_worker.host")
_GIB: Final = 2**30


class Gpus:
    """The GPUs of this machine. The first call loads NVML."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: dict[str, Any] | None = None

    def devices(self) -> tuple[HardwareDevice, ...]:
        """Return the GPUs to announce: model, id (``gpu-0``) and memory in GiB."""
        return tuple(self._device(unit, handle) for unit, handle in self._found().items())

    def usage(self) -> tuple[DeviceUsage, ...]:
        """Return the load of each GPU in percent, and its used memory in GiB."""
        return tuple(each for unit, handle in self._found().items() if (each := self._usage(unit, handle)))

    def memory_used(self) -> int:
        """Return the bytes in use on all GPUs together, by whatever process."""
        return sum(self._memory_used(handle) for handle in self._found().values())

    def _memory_used(self, handle: Any) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used)
        except self._nvml.NVMLError:  # a GPU that fell off the bus holds nothing
            return 0

    def _found(self) -> dict[str, Any]:
        if self._handles is None:
            self._handles = self._find()
        return self._handles

    def _find(self) -> dict[str, Any]:
        try:
            nvml: Any = importlib.import_module("pynvml")  # untyped, and present only with the extra
        except ImportError:
            return {}
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            return {f"gpu-{n}": nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())}
        except nvml.NVMLError as error:
            _log.info("no GPU is announced: %s", error, extra={"action": "gpu_unavailable"})
            return {}

    def _device(self, unit: str, handle: Any) -> HardwareDevice:
        name: str | bytes = self._nvml.nvmlDeviceGetName(handle)  # bytes in older releases
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle).total
        return HardwareDevice(
            type="gpu",
            id=unit,
            model=name.decode(errors="replace") if isinstance(name, bytes) else name,
            properties={"vram_gb": round(memory / _GIB, 2), "memory_gb": round(memory / _GIB, 2)},
        )

    def _usage(self, unit: str, handle: Any) -> DeviceUsage | None:
        try:
            load = self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu
            used = self._nvml.nvmlDeviceGetMemoryInfo(handle).used
        except self._nvml.NVMLError:  # a GPU that fell off the bus is not loaded
            return None
        return DeviceUsage(unit_id=unit, load_percent=float(load), metrics={"vram_used_gb": round(used / _GIB, 2)})
