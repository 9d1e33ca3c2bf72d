"""A collector for OTLP over HTTP: takes the real protobuf and keeps the spans and the names of the metrics."""

import asyncio
import contextlib
import gzip

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span:
    """A span as it was sent; ids are hex."""

    def __init__(self, sent, resource):
        self.name = sent.name
        self.trace_id = sent.trace_id.hex()
        self.span_id = sent.span_id.hex()
        self.parent_id = sent.parent_span_id.hex()
        self.failed = sent.status.code == 2
        self.status = sent.status.message
        self.attributes = {each.key: each.value.string_value for each in sent.attributes}
        self.links = [(each.trace_id.hex(), each.span_id.hex()) for each in sent.links]
        self.service = {each.key: each.value.string_value for each in resource.attributes}.get("service.name")

    def __repr__(self):
        return f"{self.name} {self.span_id} < {self.parent_id}"


class Collector:
    """What was sent so far."""

    def __init__(self):
        self.url = ""
        self.spans = []
        self.metrics = set()
        self._changed = asyncio.Condition()

    def named(self, name, **attributes):
        """The spans of that name whose attributes hold these."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        return [each for each in self.spans if each.name == name and wanted.items() <= each.attributes.items()]

    async def wait_for(self, predicate, timeout=20):
        """Return the first true value of ``predicate``."""
        async with asyncio.timeout(timeout), self._changed:
            return await self._changed.wait_for(predicate)

    async def take_traces(self, request):
        message = ExportTraceServiceRequest.FromString(await _body(request))
        for resource in message.resource_spans:
            self.spans += [Span(span, resource.resource) for scope in resource.scope_spans for span in scope.spans]
        return await self._taken()

    async def take_metrics(self, request):
        message = ExportMetricsServiceRequest.FromString(await _body(request))
        for resource in message.resource_metrics:
            self.metrics |= {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
        return await self._taken()

    async def _taken(self):
        async with self._changed:
            self._changed.notify_all()
        return web.Response(content_type="application/x-protobuf")


async def _body(request):
    body = await request.read()
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


@contextlib.asynccontextmanager
async def collecting():
    collector, app = Collector(), web.Application(client_max_size=2**24)
    app.add_routes([web.post("/v1/traces", collector.take_traces), web.post("/v1/metrics", collector.take_metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
