"""Faults on demand: scripts what networks, proxies and orchestrators do to a worker on a bad day."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from avtomatika_worker.devserver.snapshots import RecordedCall

FaultCall = Literal["poll", "result", "heartbeat", "event", "register", "token", "ws", "any"]
FaultKind = Literal[
    "drop_before", "drop_after", "delay", "answer_late", "status", "garbage", "truncate", "html", "reset", "body"
]


@dataclass(eq=False, slots=True)
class Fault:
    """What happens instead of a good answer to the next ``times`` matching calls (None: to all).

    The call is not processed with:

    - ``drop_before``: the connection is closed without an answer; ``reset``: it is reset;
    - ``garbage``: bytes that are not HTTP are sent;
    - ``status``: ``status`` is answered, with ``retry_after`` in its header; ``html``: the same, with a proxy's page;
    - ``body``: 200 is answered with exactly ``body``; on a WebSocket ``body`` is sent as a message, once.

    The call is processed with:

    - ``drop_after``: its answer is lost; on a WebSocket: it is closed right after the handshake;
    - ``truncate``: its answer ends in the middle;
    - ``delay``: ``delay`` seconds later. (A ``delay`` precedes any other kind too.)
    - ``answer_late``: at once, but its answer leaves only after ``delay`` seconds: meanwhile, a task is on its way.

    ``when`` picks calls; ``headers`` are added to the answers of ``status``, ``html`` and ``body``. ``used`` counts.
    """

    call: FaultCall = "any"
    kind: FaultKind = "status"
    times: int | None = 1
    status: int = 503
    retry_after: float | str | None = None
    delay: float = 0.0
    body: bytes = b"{}"
    when: Callable[[RecordedCall], bool] | None = None
    headers: Mapping[str, str] | None = None
    used: int = field(default=0, init=False)

    @property
    def processed(self) -> bool:
        """Whether the call takes effect."""
        return self.kind in {"drop_after", "truncate", "delay", "answer_late"}

    def matches(self, call: RecordedCall) -> bool:
        """Return whether the fault hits a call."""
        if self.times is not None and self.used >= self.times:
            return False
        return self.call in {call.call, "any"} and (self.when is None or self.when(call))


class FaultBook:
    """The pending faults, in the order of injection."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        """Add faults after the others."""
        self._faults.extend(faults)

    @property
    def pending(self) -> tuple[Fault, ...]:
        """The pending faults."""
        return tuple(self._faults)

    def clear(self) -> None:
        """Drop all faults."""
        self._faults.clear()

    def next_for(self, call: RecordedCall) -> Fault | None:
        """Return the first fault that hits a call, and count it."""
        if not self._faults:
            return None
        fault = next((fault for fault in self._faults if fault.matches(call)), None)
        if fault is not None:
            fault.used += 1
            self._faults = [other for other in self._faults if other.times is None or other.used < other.times]
        return fault
