"""Every metric of the worker in one table, and the interface for recording them.

Labels are bounded: names of registered skills, configured hosts, words from lists; never ids, never error texts. The
documentation's table and the dashboard's check are generated from `METRICS`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Final

import msgspec


class Kind(enum.StrEnum):
    """How a metric's values are aggregated."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


class Metric(msgspec.Struct, frozen=True):
    """One metric; ``buckets`` are a histogram's bounds, in its unit."""

    name: str
    kind: Kind
    unit: str
    doc: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_TASK_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_CALL_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SKILL: Final = "task.type"
_AT: Final = "orchestrator"
_LOADER: Final = "model.loader"


def _counter(name: str, unit: str, doc: str, *labels: str) -> Metric:
    return Metric(f"worker.{name}", Kind.COUNTER, unit, doc, labels)


def _histogram(name: str, buckets: tuple[float, ...], doc: str, *labels: str, unit: str = "s") -> Metric:
    return Metric(f"worker.{name}", Kind.HISTOGRAM, unit, doc, labels, buckets)


def _gauge(name: str, unit: str, doc: str, *labels: str) -> Metric:
    return Metric(f"worker.{name}", Kind.GAUGE, unit, doc, labels)


TASKS: Final = _counter("tasks.total", "{task}", "Tasks that ended here.", _SKILL, "status")
TASK_DURATION: Final = _histogram("tasks.duration", _TASK_BUCKETS, "Time that skills ran.", _SKILL, "status")
START_DELAY: Final = _histogram("tasks.start.delay", _CALL_BUCKETS, "Time from dispatch to the skill's start.", _SKILL)
CANCELLATIONS: Final = _counter(
    "tasks.cancelled.total",
    "{task}",
    "Tasks that were stopped: requested, deadline, shutdown, lease_lost or stale.",
    "reason",
)
VIOLATIONS: Final = _counter(
    "contract.violations.total", "{task}", "Results that violated the skill's contract.", _SKILL
)
TASKS_REFUSED: Final = _counter(
    "tasks.refused.total", "{task}", "Tasks refused: unsigned, bad_signature or not_allowed.", _AT, "reason"
)
TASKS_ADOPTED: Final = _counter(
    "tasks.adopted.total",
    "{task}",
    "Tasks handed out again that known work answered: it was running, ended (its result was on its way) or stale.",
    _AT,
    "stage",
)
POLLS: Final = _counter(
    "polls.total", "{poll}", "Polls: task, empty, malformed, untrusted, limited, refused or failed.", _AT, "outcome"
)
POLL_DURATION: Final = _histogram("polls.duration", _CALL_BUCKETS, "Time until a poll was answered.", _AT)
DELIVERIES: Final = _counter(
    "results.attempts.total",
    "{attempt}",
    "Attempts to deliver a result or an event: delivered, ignored, refused, limited or failed.",
    _AT,
    "kind",
    "outcome",
)
DELIVERY_DURATION: Final = _histogram(
    "results.delivery.duration", _CALL_BUCKETS, "Time from a result's creation to its acceptance, with retries.", _AT
)
EXPIRED: Final = _counter("results.expired.total", "{message}", "Results and events given up because of age.", _AT)
EVENTS: Final = _counter("events.total", "{event}", "Events of skills: sent, or blocked as invalid.", _SKILL, "outcome")
CHUNKS: Final = _counter("stream.chunks", "{chunk}", "Chunks that skills yielded and that went out.", _SKILL)
CHUNKS_PER_EVENT: Final = _histogram(
    "stream.chunks.per_event",
    (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000),
    "Chunks that went out as one event: how far they were coalesced.",
    _SKILL,
    unit="{chunk}",
)
FIRST_CHUNK: Final = _histogram(
    "stream.first_chunk", _CALL_BUCKETS, "Time from a task's arrival until its first chunk was delivered.", _SKILL
)
BATCH_SIZE: Final = _histogram(
    "batch.size",
    (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    "Tasks in one call of a batched skill.",
    _SKILL,
    unit="{task}",
)
HEARTBEATS: Final = _counter("heartbeats.total", "{heartbeat}", "Heartbeats: ok or failed.", _AT, "outcome")
HEARTBEAT_DURATION: Final = _histogram(
    "heartbeats.duration", _CALL_BUCKETS, "Time until a heartbeat was answered.", _AT
)
REGISTRATIONS: Final = _counter("registrations.total", "{registration}", "Registrations: ok or failed.", _AT, "outcome")
S3_OPERATIONS: Final = _counter(
    "s3.operations.total", "{operation}", "Object store operations: ok or failed.", "operation", "outcome"
)
S3_DURATION: Final = _histogram(
    "s3.operations.duration", _TASK_BUCKETS, "Duration of object store operations.", "operation"
)
S3_BYTES: Final = _counter("s3.transferred", "By", "Bytes transferred from and to object stores.", "operation")
MODEL_USES: Final = _counter(
    "models.uses.total",
    "{task}",
    "Tasks that asked for a model: warm if it was loaded, otherwise cold.",
    _LOADER,
    "state",
)

SLOTS: Final = _gauge(
    "slots",
    "{slot}",
    "Slots: free, polling, running, or held_back while memory, CPU or a GPU's memory is short.",
    "state",
)
POLLS_IN_FLIGHT: Final = _gauge("polls.in_flight", "{poll}", "Polls waiting for an answer.", _AT)
LINK_UP: Final = _gauge("link.registered", "{link}", "1 while the worker is registered there, otherwise 0.", _AT)
MODELS: Final = _gauge("models", "{model}", "Models: loading, loaded or unloading.", _LOADER, "state")
MODEL_MEMORY: Final = _gauge("models.memory", "By", "Memory that they take up, as measured.", _LOADER)
OUTBOX_DEPTH: Final = _gauge("outbox.depth", "{message}", "Results and events waiting for another attempt.", _AT)
OUTBOX_AGE: Final = _gauge("outbox.oldest.age", "s", "Age of the oldest of them.")
LOOP_LAG: Final = _gauge("loop.lag", "s", "Time for which the main loop has been blocked.")
TRANSFERS: Final = _gauge("s3.transfers", "{transfer}", "Running transfers.")
HOST_CPU: Final = _gauge("host.cpu.load", "%", "Load of the machine's (or container's) CPUs.")
HOST_MEMORY: Final = _gauge("host.memory.used", "By", "Memory used there.")
GPU_LOAD: Final = _gauge("host.gpu.load", "%", "Load of a GPU.", "device")
PROCESS_MEMORY: Final = _gauge("process.memory", "By", "Resident memory of the worker's process.")

METRICS: Final = tuple(each for each in list(globals().values()) if isinstance(each, Metric))
"""All metrics, in the order of the documentation."""

FLEET_PROCESSES: Final = _gauge(
    "fleet.processes", "{process}", "Processes: starting, running, ending, waiting, left or empty.", "state"
)
FLEET_RESTARTS: Final = _counter(
    "fleet.restarts.total", "{restart}", "Restarts of a process that had ended by itself.", "worker_id"
)

FLEET_METRICS: Final = (FLEET_PROCESSES, FLEET_RESTARTS)
"""Metrics of ``worker run --workers N`` itself; its `/metrics` also has those of every process."""

Reading = tuple[float, tuple[str, ...]]
"""A gauge's value, and the values of its labels."""


class Recorder:
    """Records nothing; used while metrics are off. May be called from any thread."""

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Add to a counter; ``labels`` are the values of its labels, in their order."""

    def time(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Record a time in a histogram."""

    def record(self, metric: Metric, value: float, *labels: str) -> None:
        """Record a value in a histogram of anything but times."""

    def watch(self, metric: Metric, read: Callable[[], Iterable[Reading]]) -> None:
        """Read a gauge's values from ``read`` whenever they are collected, in any thread."""
