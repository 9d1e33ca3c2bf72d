"""Which accelerators processes of this machine can be given, and how each is made the only one that a process sees.

The runtimes of all vendors read variables before they look for devices. What such a variable restricts already is
kept: only what it names is given to anyone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    combinable: bool = True
    """Whether a process can use it beside others: CUDA shows a process one instance (MIG) only."""


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
                return _listed(variable, names, gpus)
            hidden.append(variable)
    if selected := _SELECTED.fullmatch(environ.get(_SELECTOR, "")):
        backend, numbers = selected["backend"], dict.fromkeys(selected["numbers"].split(","))
        return tuple(Accelerator(f"gpu{number}", {_SELECTOR: f"{backend}:{number}"}) for number in numbers)
    if CUDA not in hidden and (found := gpus.found()):
        return tuple(Accelerator(each.label, {CUDA: each.uuid}, each.instance is None) for each in found)
    if not {_HIP, _ROCR, CUDA} & {*hidden} and (count := _count_amd(kfd)):
        return tuple(Accelerator(f"gpu{number}", {_ROCR: str(number)}) for number in range(count))
    raise NoDeviceError(_looked_for(gpus, hidden, kfd))


def _listed(variable: str, names: Sequence[str], gpus: Gpus) -> tuple[Accelerator, ...]:
    """Return the devices that a variable names; one that it names twice, by its number and its id, counts once."""
    labels = [_label(variable, name, gpus) for name in names]
    found: dict[str, Accelerator] = {}
    for position, (name, label) in enumerate(zip(names, labels, strict=True)):
        # Beside an id that nobody knows the number of, no number is used: the position could be another one's number.
        unique = f"gpu{position}" if label is None or None in labels else label
        found.setdefault(unique, Accelerator(unique, {variable: name}, not _is_instance(variable, name, gpus)))
    return tuple(found.values())


def environ_for(devices: Sequence[Accelerator]) -> dict[str, str]:
    """Return the variables that make these the only devices that a process sees: all are of one `accelerators`."""
    values: dict[str, list[str]] = {}
    for each in devices:
        for variable, value in each.environ.items():
            values.setdefault(variable, []).append(value)
    return {variable: _joined(variable, each) for variable, each in values.items()}


def _joined(variable: str, values: Sequence[str]) -> str:
    if variable != _SELECTOR:
        return ",".join(values)
    backend = values[0].partition(":")[0]
    return f"{backend}:{','.join(each.partition(':')[2] for each in values)}"


def _is_instance(variable: str, name: str, gpus: Gpus) -> bool:
    """Whether an entry names an instance of a GPU (MIG): by its id, or by the number of a GPU that is partitioned."""
    known = gpus.named(name) if variable == CUDA else None
    return name.startswith("MIG-") if known is None else known.instance is not None


def _label(variable: str, name: str, gpus: Gpus) -> str | None:
    """Return the label of a device that is named by its number, or by an id whose number NVML knows; else None."""
    known = gpus.named(name) if variable == CUDA else None
    if known is not None:
        return known.label
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", name):
        return None
    return f"gpu{'-'.join(str(int(part)) for part in name.split('.'))}"  # 00 is 0


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
