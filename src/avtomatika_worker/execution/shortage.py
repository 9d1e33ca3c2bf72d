"""Recognizes exceptions that mean a resource ran out: memory of the host or a device, disk space, descriptors.

Array libraries raise errors of their own when a device is out of memory. They are recognized by the package and name
of their types and base types, which avoids importing the libraries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from avtomatika_worker.errors import ResourceExhaustedError
from avtomatika_worker.files.disk import is_exhausted as is_disk_error

_MOST_CAUSES: Final = 100
_SQLITE_EXHAUSTED: Final = frozenset({7, 13})
"""SQLITE_NOMEM and SQLITE_FULL: a skill's own database on a full disk."""

_OF_LIBRARIES: Final = frozenset(
    {
        ("torch", "OutOfMemoryError"),
        ("cupy", "OutOfMemoryError"),
        ("tensorflow", "ResourceExhaustedError"),
        ("pycuda", "MemoryError"),
    }
)
"""Top-level package and name of each type: the modules below the package differ between releases."""

_XLA: Final = frozenset({("jaxlib", "XlaRuntimeError"), ("jax", "JaxRuntimeError"), ("jaxlib", "JaxRuntimeError")})
"""XLA's single error type: its text begins with the status code."""

_XLA_CODE: Final = "RESOURCE_EXHAUSTED:"


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that a resource ran out."""
    if is_out_of_memory(error):
        return True
    if isinstance(error, OSError):
        return is_disk_error(error)
    code: object = getattr(error, "sqlite_errorcode", None)  # avoids importing sqlite3
    return isinstance(code, int) and code & 0xFF in _SQLITE_EXHAUSTED


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the host or a device ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    names = {_name_of(each) for each in type.__dict__["__mro__"].__get__(type(error))}
    if names & _OF_LIBRARIES:
        return True
    return bool(names & _XLA) and bool(error.args) and str(error.args[0]).startswith(_XLA_CODE)


def wants_smaller_batches(error: BaseException) -> bool:
    """Whether a batch failed because memory ran out, or its skill raised `ResourceExhaustedError`."""
    return any(isinstance(each, ResourceExhaustedError) or is_out_of_memory(each) for each in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, and the members of groups; each once, up to a limit."""
    waiting, seen = deque([error]), set[int]()
    while waiting and len(seen) < _MOST_CAUSES:
        each = waiting.popleft()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        context = None if each.__suppress_context__ else each.__context__
        is_group = issubclass(type(each), BaseExceptionGroup)
        inner: tuple[BaseException, ...] = getattr(each, "exceptions", ()) if is_group else ()
        waiting.extend(cause for cause in (each.__cause__, context, *inner) if cause is not None)


def _name_of(kind: type) -> tuple[str, str]:
    """Return a type's real package and name, bypassing its metaclass."""
    module: object = type.__dict__["__dict__"].__get__(kind).get("__module__")
    name: str = type.__dict__["__name__"].__get__(kind)
    return (module.partition(".")[0] if isinstance(module, str) else "", name)
