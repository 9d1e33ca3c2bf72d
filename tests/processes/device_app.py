"""Skills that fail as libraries for GPUs do: their errors are known by package, name and code."""

from __future__ import annotations

import os
from typing import Any

from avtomatika_worker import PermanentError, SkillBlueprint

skills = SkillBlueprint("devices")


def of(package: str, name: str, base: type[Exception] = RuntimeError, **attributes: Any) -> Exception:
    """Return an error of a type that has this name in that package."""
    error = type(name, (base,), {"__module__": package})("CUDA error: an illegal memory access was encountered")
    vars(error).update(attributes)
    return error


ERRORS = {
    "torch": lambda: of("torch", "AcceleratorError", error_code=700),
    "torch, without a code": lambda: of("torch", "AcceleratorError"),
    "torch, once": lambda: RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be …"),
    "torch, for AMD": lambda: RuntimeError("HIP error: unspecified launch failure"),
    "cupy": lambda: of("cupy_backends.cuda.api.runtime", "CUDARuntimeError", status=719),
    "numba": lambda: of("numba.cuda.cudadrv.driver", "CudaAPIError", code=716),
    "pycuda": lambda: of("pycuda._driver", "LaunchError"),
    "torch, invalid value": lambda: of("torch", "AcceleratorError", error_code=1),
    "cupy, out of memory": lambda: of("cupy_backends.cuda.api.runtime", "CUDARuntimeError", status=2),
    "somebody's": lambda: of("app", "AcceleratorError", error_code=700),
    "a text": lambda: ValueError("CUDA error: an illegal memory access was encountered"),
}


@skills.skill(executor="process")
def pid() -> dict[str, int]:
    return {"pid": os.getpid()}


@skills.skill(executor="process")
def compute(which: str) -> None:
    raise ERRORS[which]()


@skills.skill(executor="process")
async def compute_in_group(which: str) -> None:
    raise ExceptionGroup("several", [ERRORS[which](), ValueError("another")])


@skills.skill(executor="process")
def compute_wrapped(which: str) -> None:
    try:
        raise ERRORS[which]()
    except Exception as error:
        raise PermanentError("the picture is wrong") from error
