"""Errors for a skill process that ended or did not start, and for a failed call in one."""

from __future__ import annotations

import signal

from avtomatika_worker.errors import (
    ProcessStartError,
    ResourceError,
    ResourceExhaustedError,
    SkillDefinitionError,
    TransientError,
    WorkerError,
)
from avtomatika_worker.execution.outcome import Failed


class CallFailedError(Exception):
    """The call for a batch failed in its process; ``short`` if memory ran out."""

    def __init__(self, outcome: Failed, *, short: bool) -> None:
        super().__init__(outcome.message)
        self.outcome: Failed = outcome
        self.short: bool = short


def crash(code: int, *, killed: bool) -> ResourceExhaustedError | TransientError:
    """Return the error for tasks whose process ended with exit code ``code``; ``killed`` if the worker killed it."""
    details = {"signal": _signal_name(-code)} if code < 0 else {"exit_code": code}
    if code == -signal.SIGKILL and not killed:  # as the kernel does when memory runs out
        problem = f"the skill's process was killed ({_signal_name(-code)}); most likely memory ran out"
        return ResourceExhaustedError(problem, details)
    return TransientError(f"the skill's process ended: {ending(code)}", details)


def ending(code: int) -> str:
    """Describe how a process ended."""
    return f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def start_error(kind: str, name: str, problem: str) -> WorkerError:
    """Return the error that a process reported instead of becoming ready."""
    if kind == "skill":
        return SkillDefinitionError(name, problem)
    return ResourceError(name, problem) if kind == "resource" else ProcessStartError(problem)
