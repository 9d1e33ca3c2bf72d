"""The official SDK's ``avtomatika_worker.types``: codes of errors, and types of what a program passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from avtomatika_worker.errors import (
    ContractViolationError,
    DependencyError,
    DependencyMissingError,
    InternalError,
    InvalidInputError,
    PermanentError,
    ResourceExhaustedError,
    SecurityError,
    TaskTimeoutError,
    TransientError,
)

CONTRACT_VIOLATION_ERROR: Final = ContractViolationError.code
DEPENDENCY_ERROR: Final = DependencyError.code
DEPENDENCY_MISSING_ERROR: Final = DependencyMissingError.code
INTERNAL_ERROR: Final = InternalError.code
INVALID_INPUT_ERROR: Final = InvalidInputError.code
PERMANENT_ERROR: Final = PermanentError.code
RESOURCE_EXHAUSTED_ERROR: Final = ResourceExhaustedError.code
SECURITY_ERROR: Final = SecurityError.code
TIMEOUT_ERROR: Final = TaskTimeoutError.code
TRANSIENT_ERROR: Final = TransientError.code

CapacityChecker = Callable[[str], bool]
"""Takes a skill's name, returns whether another task of it could start now."""

Middleware = Callable[[dict[str, Any], Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""The older form of a middleware: ``async (context, next)``; docs/guide/middleware.md."""


class ParamValidationError(InvalidInputError):
    """Params that do not fit, raised by a skill: the task fails with INVALID_INPUT_ERROR."""


__all__ = [
    "CONTRACT_VIOLATION_ERROR",
    "DEPENDENCY_ERROR",
    "DEPENDENCY_MISSING_ERROR",
    "INTERNAL_ERROR",
    "INVALID_INPUT_ERROR",
    "PERMANENT_ERROR",
    "RESOURCE_EXHAUSTED_ERROR",
    "SECURITY_ERROR",
    "TIMEOUT_ERROR",
    "TRANSIENT_ERROR",
    "CapacityChecker",
    "Middleware",
    "ParamValidationError",
]
