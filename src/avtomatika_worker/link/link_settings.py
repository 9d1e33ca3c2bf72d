"""A link's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.policy.call_budget import CallLimit
from avtomatika_worker.protocol.task_verification import TaskGuard


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """A link's configuration. ``token`` authenticates and signs, or if it is refused, ``token_fallback``.

    ``has_certificate``: the transport presents one, so access tokens can be requested. ``event_rate`` is in events per
    second. ``rate_limit`` is the orchestrator's limit for events and for results, None if unknown. Times are in
    seconds.
    """

    url: str
    token: str | None
    token_fallback: str | None = None
    has_certificate: bool = False
    heartbeat_interval: float = 15.0
    poll_timeout: float = 30.0
    registration: BackoffPolicy = field(default_factory=BackoffPolicy)
    calls: BackoffPolicy = field(default_factory=BackoffPolicy)
    guard: TaskGuard = field(default_factory=TaskGuard)
    event_rate: float = 100.0
    rate_limit: CallLimit | None = None

    def __repr__(self) -> str:
        return f"LinkSettings(url={self.url!r})"
