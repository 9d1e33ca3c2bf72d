"""Recognizes exceptions after which a process can no longer use its device: anything it did there would fail.

Library errors are recognized by the package and name of their types, which avoids importing the libraries, and by the
CUDA error code, if the exception has it.
"""

from __future__ import annotations

from typing import Final

from avtomatika_worker.execution.shortage import causes

_STICKY: Final = frozenset({214, 220, 700, 702, 709, 710, *range(714, 720), 999})
"""CUDA error codes after which "the process must be terminated", according to its manual: illegal addresses and
instructions, failed launches and assertions, uncorrectable memory and link errors."""

_WITH_CODE: Final = {
    ("torch", "AcceleratorError"): "error_code",
    ("cupy_backends", "CUDARuntimeError"): "status",
    ("cupy_backends", "CUDADriverError"): "status",
    ("numba", "CudaAPIError"): "code",
}
"""Types by package and name, with the attribute that holds the code."""

_WITHOUT_CODE: Final = frozenset({("torch", "AcceleratorError"), ("pycuda", "LaunchError")})
"""Types that suffice without a code. PyTorch's has a code in newer releases only."""

_TEXTS: Final = ("CUDA error: ", "HIP error: ")
"""PyTorch before 2.8 raises a plain RuntimeError: this is the only place that decides by an error's text."""


def breaks_device(error: BaseException) -> bool:
    """Whether an exception, or any in its chain of causes and contexts, means that the device is unusable."""
    return any(_says_so(each) for each in causes(error))


def _says_so(error: BaseException) -> bool:
    names = {_name_of(each) for each in type.__dict__["__mro__"].__get__(type(error))}
    for name in names & _WITH_CODE.keys():
        code: object = vars(error).get(_WITH_CODE[name])
        if isinstance(code, int):
            return code in _STICKY
    if names & _WITHOUT_CODE:
        return True
    text: object = error.args[0] if type(error) is RuntimeError and error.args else None
    return isinstance(text, str) and text.startswith(_TEXTS)


def _name_of(kind: type) -> tuple[str, str]:
    return str(kind.__module__).partition(".")[0], kind.__name__
