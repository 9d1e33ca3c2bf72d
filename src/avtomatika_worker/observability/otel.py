"""OpenTelemetry: the only module that imports it, and only with metrics and traces enabled (extra ``[metrics]``).

An SDK set up by the host program is used as it is. Otherwise one is set up for the process: Prometheus's format
for ``/metrics``, and OTLP where ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or the one of a signal) is set: over gRPC (extra
``[otlp-grpc]``) where the protocol or port 4317 says so, else over HTTP. The other ``OTEL_*`` variables are the SDK's
own.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import metrics as otel_metrics
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from avtomatika_worker._extras import install_hint
from avtomatika_worker.observability.metrics import METRICS, Kind, Metric, Reading, Recorder
from avtomatika_worker.observability.telemetry import ObservabilityManager, Telemetry
from avtomatika_worker.observability.tracing import Tracing
from avtomatika_worker.protocol.messages import Task

_log: Final = logging.getLogger("avtomatika_worker")

_GRPC_PORT: Final = 4317
_SCOPE: Final = "avtomatika_worker"
FLUSH_TIMEOUT: Final = 3.0
"""Seconds for which a worker's shutdown waits for spans and metrics to be sent."""


def set_up(*, service_name: str, worker_id: str, version: str) -> Telemetry:
    """Return telemetry that records. ``OTEL_SERVICE_NAME`` overrides ``service_name``."""
    resource = _resource(service_name, worker_id, version)
    own = [_own_tracers(resource), _own_meters(resource)]
    tracer = trace.get_tracer(_SCOPE, version)
    meter = otel_metrics.get_meter(_SCOPE, version)
    recorder, tracing = OtelRecorder(meter), OtelTracing(tracer)
    return Telemetry(
        metrics=recorder,
        tracing=tracing,
        manager=ObservabilityManager(tracer, meter, tracing, recorder),
        scrape=lambda: (generate_latest(REGISTRY), CONTENT_TYPE_LATEST),
        close=partial(_close, recorder, [each for each in own if each is not None]),
    )


def _resource(service_name: str, worker_id: str, version: str) -> Resource:
    reported = Resource.create(
        {SERVICE_INSTANCE_ID: worker_id, SERVICE_VERSION: version}
    )  # reads OTEL_RESOURCE_ATTRIBUTES
    named = not str(reported.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service")
    return reported if named else reported.merge(Resource({SERVICE_NAME: service_name}))


def _own_tracers(resource: Resource) -> TracerProvider | None:
    """Set up traces, unless the host program has or nothing would receive them; contexts are passed on anyway."""
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) or not _exports("TRACES"):
        return None
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter("TRACES", OTLPSpanExporter, "trace_exporter")))
    trace.set_tracer_provider(provider)
    return provider


def _own_meters(resource: Resource) -> MeterProvider | None:
    """Set up metrics, unless the host program has."""
    if isinstance(otel_metrics.get_meter_provider(), MeterProvider):
        return None
    readers: list[MetricReader] = [PrometheusMetricReader()]
    if _exports("METRICS"):
        exporter = _exporter("METRICS", OTLPMetricExporter, "metric_exporter")
        readers.append(PeriodicExportingMetricReader(exporter))
    provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    otel_metrics.set_meter_provider(provider)
    return provider


def _exports(signal: str) -> bool:
    """Whether a signal is exported over OTLP."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return bool(endpoint) and os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp") != "none"


def _exporter(signal: str, over_http: Callable[[], Any], module: str) -> Any:
    """Return a signal's exporter: gRPC where the protocol, or the port that is gRPC's, says so and it is installed."""
    protocol, endpoint = _configured(signal, "PROTOCOL"), _configured(signal, "ENDPOINT")
    if protocol != "grpc" and (protocol or _port_of(endpoint) != _GRPC_PORT):
        return over_http()
    try:
        grpc = importlib.import_module(f"opentelemetry.exporter.otlp.proto.grpc.{module}")
    except ImportError:
        _log.warning(
            "%s speaks OTLP over gRPC, which is not installed: posts over HTTP go there, and are refused; name the port"
            " for HTTP (4318), or %s",
            endpoint or protocol,
            install_hint("otlp-grpc"),
            extra={"action": "otlp_protocol"},
        )
        return over_http()
    return getattr(grpc, over_http.__name__)()


def _port_of(endpoint: str) -> int | None:
    """Return the port of an address, which gRPC's may be without a scheme; None without one."""
    try:
        return urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").port
    except ValueError:
        return None


def _configured(signal: str, what: str) -> str:
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{what}")
    return (own or os.environ.get(f"OTEL_EXPORTER_OTLP_{what}") or "").strip()


def _close(recorder: OtelRecorder, providers: Sequence[TracerProvider | MeterProvider]) -> None:
    """Send what is waiting, while the gauges still have values, for at most `FLUSH_TIMEOUT`.

    Runs in a thread that is abandoned if necessary: exporters exceed the timeout given to ``force_flush``.
    """

    def flush() -> None:
        for provider in providers:
            provider.force_flush()

    thread = threading.Thread(target=flush, name="telemetry", daemon=True)
    thread.start()
    thread.join(FLUSH_TIMEOUT)
    recorder.close()


class OtelRecorder(Recorder):
    """Records with OpenTelemetry instruments, one for each metric of the table."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._closed = False
        self._counters = {
            each: meter.create_counter(each.name, each.unit, each.doc) for each in METRICS if each.kind is Kind.COUNTER
        }
        self._histograms = {
            each: meter.create_histogram(
                each.name, each.unit, each.doc, explicit_bucket_boundaries_advisory=list(each.buckets)
            )
            for each in METRICS
            if each.kind is Kind.HISTOGRAM
        }

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        self._counters[metric].add(by, dict(zip(metric.labels, labels, strict=True)))

    def time(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Record a time in a histogram."""
        self._histograms[metric].record(seconds, dict(zip(metric.labels, labels, strict=True)))

    def record(self, metric: Metric, value: float, *labels: str) -> None:
        """Record a value in a histogram of anything but times."""
        self.time(metric, value, *labels)

    def close(self) -> None:
        """Stop reporting gauges: their worker has stopped, but the instruments stay."""
        self._closed = True

    def watch(self, metric: Metric, read: Callable[[], Iterable[Reading]]) -> None:
        """Read a gauge's values from ``read``."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            if self._closed:
                return []
            return [Observation(value, dict(zip(metric.labels, labels, strict=True))) for value, labels in read()]

        self._meter.create_observable_gauge(metric.name, [observe], metric.unit, metric.doc)


class OtelTracing(Tracing):
    """Makes spans with OpenTelemetry's tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def task(self, skill: str, task: Task) -> AbstractContextManager[object]:
        """Make the span of a task."""
        # The task's metadata comes from the orchestrator: only texts can be headers.
        carrier = {key: value for key, value in (task.tracing_context or {}).items() if isinstance(value, str)}
        return self._tracer.start_as_current_span(
            f"task.{skill}",
            propagate.extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes={"task.id": task.task_id, "job.id": task.job_id, "task.type": task.type},
        )

    def span(self, name: str, attributes: Mapping[str, Any] = {}) -> AbstractContextManager[object]:
        """Make a child of the current span."""
        return self._tracer.start_as_current_span(name, attributes=dict(attributes))

    def linked(
        self, name: str, spans: Sequence[object], attributes: Mapping[str, Any] = {}
    ) -> AbstractContextManager[object]:
        """Make a root span with links."""
        links = [trace.Link(each.get_span_context()) for each in spans if isinstance(each, trace.Span)]
        return self._tracer.start_as_current_span(name, Context(), links=links, attributes=dict(attributes))

    def current(self) -> object:
        """Return the current span, if there is one."""
        span = trace.get_current_span()
        return span if span.get_span_context().is_valid else None

    def failed(self, why: str, span: Any = None) -> None:
        """Set a span's status to error."""
        (trace.get_current_span() if span is None else span).set_status(Status(StatusCode.ERROR, why))

    def carrier(self) -> Mapping[str, str]:
        """Return the current span as W3C headers."""
        headers: dict[str, str] = {}
        propagate.inject(headers)
        return headers
