"""NVIDIA GPUs, through NVML (extra ``[gpu]``). Without the extra, the driver or a GPU, there are none.

What ``CUDA_VISIBLE_DEVICES`` hides from this process is not its own: NVML shows it nevertheless.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from avtomatika_worker.protocol.messages import DeviceUsage, HardwareDevice

_log: Final = logging.getLogger("avtomatika_worker.host")
_GIB: Final = 2**30

CUDA: Final = "CUDA_VISIBLE_DEVICES"
_NONE: Final = frozenset({"", "-1", "none", "nodevfiles", "void"})


def entries(value: str) -> list[str]:
    """Return what a variable such as ``CUDA_VISIBLE_DEVICES`` names: nothing follows an entry that names none."""
    names: dict[str, None] = {}
    for each in value.split(","):
        name = each.strip()
        if name.lower() in _NONE:
            break
        names[name] = None
    return list(names)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or an instance of one that is partitioned (MIG). ``number`` is NVML's: in the order of the PCI bus."""

    number: int
    instance: int | None
    uuid: str
    handle: Any

    @property
    def unit(self) -> str:
        """Its id in announcements."""
        return f"gpu-{self.number}" if self.instance is None else f"gpu-{self.number}-mig-{self.instance}"

    @property
    def label(self) -> str:
        """Its name in worker ids."""
        return f"gpu{self.number}" if self.instance is None else f"gpu{self.number}-mig{self.instance}"

    def is_named(self, name: str) -> bool:
        """Whether an entry of ``CUDA_VISIBLE_DEVICES`` names it: ids may be cut short."""
        if name.isdecimal():
            return int(name) == self.number
        return name.startswith(("GPU-", "MIG-")) and self.uuid.startswith(name)


class Gpus:
    """The GPUs of this machine that a process with these variables may use. The first call loads NVML."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """``environ`` is this process's by default."""
        self._environ = os.environ if environ is None else environ
        self._nvml: Any = None
        self._gpus: tuple[Gpu, ...] | None = None
        self.problem: str = ""
        """Why NVML cannot be asked."""

    def devices(self) -> tuple[HardwareDevice, ...]:
        """Return the GPUs to announce: model, id (``gpu-0``) and memory in GiB."""
        return tuple(map(self._device, self.found()))

    def usage(self) -> tuple[DeviceUsage, ...]:
        """Return the load of each GPU in percent, and its used memory in GiB."""
        return tuple(usage for each in self.found() if (usage := self._usage(each)))

    def memory_used(self) -> int:
        """Return the bytes in use on all GPUs together, by whatever process."""
        return sum(memory.used for each in self.found() if (memory := self._memory(each)) is not None)

    def memory_share(self) -> float:
        """Return the percentage of the memory in use, of the GPU where it is highest; 0 without one."""
        return max((share for each in self.found() if (share := self._share(each)) is not None), default=0.0)

    def found(self) -> tuple[Gpu, ...]:
        """Return the GPUs, in the order in which programs number them."""
        if self._gpus is None:
            self._gpus = self._visible(self._every())
        return self._gpus

    def named(self, name: str) -> Gpu | None:
        """Return the GPU that an entry of ``CUDA_VISIBLE_DEVICES`` names; of a partitioned one the first instance."""
        return next((each for each in self.found() if each.is_named(name)), None)

    def _visible(self, every: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
        if CUDA not in self._environ:
            return every
        visible: list[Gpu] = []
        for name in entries(self._environ[CUDA]):
            gpu = next((each for each in every if each.is_named(name)), None)
            if gpu is None:
                break  # as CUDA does it
            visible.append(gpu)
        return tuple(visible)

    def _every(self) -> tuple[Gpu, ...]:
        try:
            nvml: Any = importlib.import_module("pynvml")  # untyped, and present only with the extra
        except ImportError:
            self.problem = "it needs nvidia-ml-py; install the extra `[gpu]`"
            return ()
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            return tuple(each for number in range(nvml.nvmlDeviceGetCount()) for each in self._parts(number))
        except nvml.NVMLError as error:
            self.problem = str(error)
            _log.info("no GPU is announced: %s", error, extra={"action": "gpu_unavailable"})
            return ()

    def _parts(self, number: int) -> Iterator[Gpu]:
        """Yield a GPU, or the instances that it is partitioned into: programs cannot use it as a whole then."""
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        if not self._is_partitioned(handle):
            yield Gpu(number, None, _text(nvml.nvmlDeviceGetUUID(handle)), handle)
            return
        for instance in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, instance)
            except nvml.NVMLError:  # this place is free
                continue
            yield Gpu(number, instance, _text(nvml.nvmlDeviceGetUUID(part)), part)

    def _is_partitioned(self, handle: Any) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(handle)[0])
        except self._nvml.NVMLError:  # most GPUs cannot be
            return False

    def _device(self, gpu: Gpu) -> HardwareDevice:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(gpu.handle).total
        return HardwareDevice(
            type="gpu",
            id=gpu.unit,
            model=_text(self._nvml.nvmlDeviceGetName(gpu.handle)),
            properties={"vram_gb": round(memory / _GIB, 2), "memory_gb": round(memory / _GIB, 2)},
        )

    def _usage(self, gpu: Gpu) -> DeviceUsage | None:
        try:
            load = self._nvml.nvmlDeviceGetUtilizationRates(gpu.handle).gpu
            used = self._nvml.nvmlDeviceGetMemoryInfo(gpu.handle).used
        except self._nvml.NVMLError:  # a GPU that fell off the bus is not loaded; of instances nobody knows the load
            return None
        return DeviceUsage(unit_id=gpu.unit, load_percent=float(load), metrics={"vram_used_gb": round(used / _GIB, 2)})

    def _share(self, gpu: Gpu) -> float | None:
        memory = self._memory(gpu)
        return 100 * memory.used / memory.total if memory is not None and memory.total else None

    def _memory(self, gpu: Gpu) -> Any:
        """Return the memory of a GPU, or None if it fell off the bus."""
        try:
            return self._nvml.nvmlDeviceGetMemoryInfo(gpu.handle)
        except self._nvml.NVMLError:
            return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value  # bytes in older releases
