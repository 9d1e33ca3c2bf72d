"""Which exceptions say that a process can use its device no more: whatever it did next there would fail, too.

Libraries' errors are known by the package and name of their types, so that none is imported for it, and by the code
that CUDA gave, where they keep it.
"""

from __future__ import annotations

from typing import Final

from avtomatika_worker.execution.shortage import causes

_STICKY: Final = frozenset({214, 220, 700, 702, 709, 710, *range(714, 720), 999})
"""Codes of CUDA after which "the process must be terminated", as its manual says: illegal addresses and instructions,
failed launches and assertions, memory and links with uncorrectable errors."""

_WITH_CODE: Final = {
    ("torch", "AcceleratorError"): "error_code",
    ("cupy_backends", "CUDARuntimeError"): "status",
    ("cupy_backends", "CUDADriverError"): "status",
    ("numba", "CudaAPIError"): "code",
}
"""Types by package and name, and which attribute holds the code."""

_WITHOUT_CODE: Final = frozenset({("torch", "AcceleratorError"), ("pycuda", "LaunchError")})
"""Types that say so by themselves. PyTorch's has its code from some release on."""

_TEXTS: Final = ("CUDA error: ", "HIP error: ")
"""PyTorch before 2.8 raises a bare RuntimeError: this is the one place that goes by an error's text."""


def breaks_device(error: BaseException) -> bool:
    """Whether an exception says so, or one that it was raised from, or while handling it."""
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
