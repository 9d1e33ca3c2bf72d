"""How an embedded orchestrator behaves: every setting, and the defaults of released orchestrators."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypedDict

from avtomatika_worker.devserver.releases import release
from avtomatika_worker.protocol.dialects import NEWEST

DEFAULT_RATE_LIMITS: Final[Mapping[str, int]] = {
    "poll": 60,
    "heartbeat": 120,
    "result": 100,
    "event": 100,
    "register": 100,
    "token": 100,
    "ws": 100,
}
"""How many calls released orchestrators accept from a worker, by default, until it pauses for a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorSettings:
    """Settings of an `EmbeddedOrchestrator`. Times are in seconds, sizes in bytes.

    Raises ValueError for an unknown version, an unknown call in ``rate_limits``, and numbers out of range.
    """

    version: str = NEWEST.version
    """The protocol version to speak, "1.0b7" to "1.0b17"."""
    host: str = "127.0.0.1"
    """The address to listen at."""
    port: int = 0
    """The port to listen at; 0 is any."""
    token: str | None = field(default="dev-token", repr=False)
    """What workers authenticate and sign with; None accepts any token."""
    individual_tokens: Mapping[str, str] | None = field(default=None, repr=False)
    """Tokens of single workers, by id."""
    secret_key: str | None = field(default=None, repr=False)
    """Signs the tasks (1.0b17)."""
    poll_time: float = 30.0
    """How long a poll waits for a task."""
    rate_limits: Mapping[str, int] | None = None
    """How many calls of a kind are accepted from each worker until it pauses for ``rate_period``.

    Calls that are missing here are not limited; None limits none. See `DEFAULT_RATE_LIMITS`.
    """
    rate_period: float = 60.0
    """The pause between two calls of a kind that resets their count; refused calls count too."""
    heartbeat_jitter_ms: int | None = None
    """Sent in answers to heartbeats, if not None."""
    issue_tokens: bool = False
    """Grant access tokens at registration, and require them from then on."""
    token_lifetime: float = 3600.0
    """How long an access token is valid."""
    lease: float = 60.0
    """How long a worker without a heartbeat is known."""
    task_timeout: float = 300.0
    """How long a worker has a task, if it does not work on it: then the task is queued again."""
    reassign_running: bool = False
    """Apply ``task_timeout`` to every task, as released orchestrators do, even to those that heartbeats list.

    Each timeout then counts as a failed attempt (RXON.md, Behaviour 12).
    """
    max_attempts: int = 4
    """How often a failing task is tried before its job is quarantined."""
    retry_delay: float = 0.0
    """The pause before a failed task is tried again."""
    history: int = 1000
    """How many ended jobs are remembered."""
    max_body: int = 16 * 2**20
    """The size limit for any request."""
    max_message: int = 2**20
    """The size limit for a worker's message; released orchestrators accept 1 MiB."""
    clock: Callable[[], float] = time.time
    """Returns the time in Unix seconds."""
    tls: ssl.SSLContext | None = None
    """Makes it HTTPS. A client certificate, if this asks for one, must have the worker's id as its common name."""

    def __post_init__(self) -> None:
        release(self.version)
        if unknown := sorted((self.rate_limits or {}).keys() - DEFAULT_RATE_LIMITS.keys()):
            allowed = ", ".join(DEFAULT_RATE_LIMITS)
            raise ValueError(f"rate_limits: {', '.join(unknown)} is not a call; choose from {allowed}")
        for name, least in _LEAST.items():
            value: float = getattr(self, name)
            if not least <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be finite and at least {least}")


_LEAST: Final = {
    "poll_time": 0,
    "rate_period": 0,
    "token_lifetime": 0,
    "lease": 0,
    "task_timeout": 0,
    "max_attempts": 1,
    "retry_delay": 0,
    "history": 0,
    "max_body": 1,
    "max_message": 1,
}

PRODUCTION_LIKE: Final = OrchestratorSettings(rate_limits=DEFAULT_RATE_LIMITS, reassign_running=True)
"""The defaults of released orchestrators, their rate limits and task timeouts included."""


class OrchestratorOptions(TypedDict, total=False):
    """The same settings as keyword arguments of `EmbeddedOrchestrator`."""

    version: str
    host: str
    port: int
    token: str | None
    individual_tokens: Mapping[str, str] | None
    secret_key: str | None
    poll_time: float
    rate_limits: Mapping[str, int] | None
    rate_period: float
    heartbeat_jitter_ms: int | None
    issue_tokens: bool
    token_lifetime: float
    lease: float
    task_timeout: float
    reassign_running: bool
    max_attempts: int
    retry_delay: float
    history: int
    max_body: int
    max_message: int
    clock: Callable[[], float]
    tls: ssl.SSLContext | None
