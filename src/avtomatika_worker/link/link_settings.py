"""What a link is configured with."""

from __future__ import annotations

from dataclasses import dataclass, field

from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.policy.call_budget import CallLimit
from avtomatika_worker.protocol.task_verification import TaskGuard


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What a link is configured with. ``token`` authenticates and signs, or ``token_fallback`` does when it is refused.

    ``has_certificate``: the transport shows one, so that access tokens can be asked for. ``event_rate``: events a
    second. ``rate_limit``: the orchestrator's limit for events and for results, None where nobody knows it. Times are
    in seconds.
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
