"""Counts, times and traces what happens at object stores."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from avtomatika_worker.files.location import Location
from avtomatika_worker.files.observer import Observer
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.telemetry import Telemetry
from avtomatika_worker.world import REAL, World


class StorageMetrics(Observer):
    """Reports to telemetry. Buckets and keys are span attributes, never metric labels."""

    def __init__(self, telemetry: Telemetry, world: World = REAL) -> None:
        self._monotonic = world.monotonic
        self._telemetry = telemetry
        self._transfers = 0
        telemetry.metrics.watch(metrics.TRANSFERS, lambda: [(self._transfers, ())])

    @contextmanager
    def operation(self, name: str, location: Location) -> Generator[None]:
        """Time one call, and make a span of it."""
        recorder, began, outcome = self._telemetry.metrics, self._monotonic(), "failed"
        attributes = {"s3.bucket": location.bucket, "s3.key": location.key, "s3.scheme": location.scheme}
        try:
            with self._telemetry.tracing.span(f"s3.{name}", attributes):
                yield
            outcome = "ok"
        finally:
            recorder.count(metrics.S3_OPERATIONS, name, outcome)
            recorder.time(metrics.S3_DURATION, self._monotonic() - began, name)

    @contextmanager
    def transfer(self) -> Generator[None]:
        """Count it while it runs."""
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1

    def moved(self, name: str, size: int) -> None:
        """Count the bytes."""
        self._telemetry.metrics.count(metrics.S3_BYTES, name, by=size)
