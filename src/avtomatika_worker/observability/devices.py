"""Which accelerators processes of this machine can be given, and how each is made the only one that a process sees.

The runtimes of all vendors read variables before they look for devices. What such a variable restricts already is
kept: only what it names is given to anyone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from avtomatika_worker.observability.gpu import CUDA, Gpus, entries

_ROCR: Final = "ROCR_VISIBLE_DEVICES"
_HIP: Final = "HIP_VISIBLE_DEVICES"
_AFFINITY: Final = "ZE_AFFINITY_MASK"
_SELECTOR: Final = "ONEAPI_DEVICE_SELECTOR"

_LISTS: Final = (CUDA, _HIP, _ROCR, _AFFINITY)
"""Variables that list devices, separated by commas. HIP's counts in what ROCr's leaves."""

_SELECTED: Final = re.compile(r"(?P<backend>[a-z_*]+):(?P<numbers>\d+(,\d+)*)")

_KFD: Final = Path("/sys/class/kfd/kfd/topology/nodes")
_COMPUTES: Final = re.compile(r"^simd_count [1-9]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A device for one process: ``label`` names it in worker ids, ``environ`` makes it the only one that is seen."""

    label: str
    environ: Mapping[str, str]


class NoDeviceError(Exception):
    """There is no accelerator. The message says where one was looked for."""


def accelerators(environ: Mapping[str, str], kfd: Path = _KFD) -> tuple[Accelerator, ...]:
    """Return the accelerators that a process with these variables may use, in a fixed order.

    Named by a variable, they are believed to be there. Else NVIDIA's are found through NVML, and AMD's through the
    kernel's driver (``kfd``). Raises `NoDeviceError`.
    """
    gpus, hidden = Gpus({}), list[str]()
    for variable in _LISTS:
        if variable in environ:
            if names := entries(environ[variable]):
                return tuple(_listed(variable, name, position, gpus) for position, name in enumerate(names))
            hidden.append(variable)
    if selected := _SELECTED.fullmatch(environ.get(_SELECTOR, "")):
        backend, numbers = selected["backend"], dict.fromkeys(selected["numbers"].split(","))
        return tuple(Accelerator(f"gpu{number}", {_SELECTOR: f"{backend}:{number}"}) for number in numbers)
    if CUDA not in hidden and (found := gpus.found()):
        return tuple(Accelerator(each.label, {CUDA: each.uuid}) for each in found)
    if not {_HIP, _ROCR, CUDA} & {*hidden} and (count := _count_amd(kfd)):
        return tuple(Accelerator(f"gpu{number}", {_ROCR: str(number)}) for number in range(count))
    raise NoDeviceError(_looked_for(gpus, hidden, kfd))


def _listed(variable: str, name: str, position: int, gpus: Gpus) -> Accelerator:
    """Return a device that a variable names: by its number, or by an id, whose number NVML may know."""
    known = gpus.named(name) if variable == CUDA else None
    if known is not None:
        return Accelerator(known.label, {variable: name})
    label = name.replace(".", "-") if re.fullmatch(r"\d+(\.\d+)?", name) else str(position)
    return Accelerator(f"gpu{label}", {variable: name})


def _count_amd(kfd: Path) -> int:
    """Return the number of AMD's GPUs: nodes that compute, and that this process may look at."""
    count = 0
    for properties in sorted(kfd.glob("*/properties")):
        try:
            count += bool(_COMPUTES.search(properties.read_text("ascii", "replace")))
        except OSError:  # another container's
            continue
    return count


def _looked_for(gpus: Gpus, hidden: list[str], kfd: Path) -> str:
    parts = [f"{each} is set, and hides all devices" for each in hidden]
    if CUDA not in hidden:
        parts.append(f"NVML: {gpus.problem or 'it knows no GPU'}")
    parts.append(f"AMD's driver: {'no GPU that may be used' if kfd.is_dir() else f'there is no {kfd}'}")
    parts.append(f"Intel's devices are used where {_AFFINITY} or {_SELECTOR} names them")
    return "; ".join(parts)
