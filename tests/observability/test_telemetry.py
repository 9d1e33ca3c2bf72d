"""Metrics and traces, from outside: a worker process, what it answers to a scrape, and what it sends over OTLP."""

import asyncio
import json
import re
import sys

import aiohttp
import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from avtomatika_worker.devserver.listening import stop_accepting
from avtomatika_worker.observability.metrics import METRICS, Kind
from generate_docs import prometheus_name
from observability.observed import observed, value
from observability.otlp import collecting

APP = """
import asyncio
from avtomatika_worker import ObservabilityManager, PermanentError, TaskContext, Worker

worker = Worker(worker_type="observed", worker_id="w1")

@worker.skill(events={"alert": {"type": "object", "required": ["level"]}}, output_schema={"required": ["n"]})
async def work(ctx: TaskContext, observability: ObservabilityManager, n: int = 1):
    with observability.tracer.start_as_current_span("inner"):
        await ctx.send_event("alert", {"level": n})
    ctx.send_event("alert", {})
    observability.meter.create_counter("app.things").add(n)
    ctx.add_cost("tokens", n)
    ctx.add_cost("tokens", n)
    return {"n": n} if n < 5 else {}

@worker.skill
def in_thread(ctx: TaskContext):
    ctx.send_event("noted", {})

@worker.skill
async def broken():
    raise PermanentError("it broke: secret text")

@worker.skill
async def slow():
    await asyncio.sleep(60)

class Model: ...

@worker.model(warm_up=["tiny"])
def load(name: str) -> Model:
    return Model()

@worker.skill(model_from="name")
def use(name: str, model: Model) -> None: ...

@worker.skill
async def again(observability: ObservabilityManager, carrier: dict | None = None):
    with observability.start_task_span("inner", "t-1", "j-1", step=2) as span:
        observability.set_span_status_error(span, "went wrong")
        with observability.start_s3_span("put", "s3://b/k"):
            pass
    with observability.start_task_span("elsewhere", "t-2", "j-2", parent_context=carrier):
        pass
    observability.record_s3_op("put", "ok")
    observability.record_task_finished("inner", "success", 0.5)
    return {"has_otel": observability.has_otel}
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CARRIER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "broken": 5}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator(poll_time=1.0, max_attempts=1) as started:
        yield started


async def test_a_scrape_reports_what_happened(tmp_path, orchestrator):
    async with observed(tmp_path, orchestrator, APP) as worker:
        orchestrator.inject(Fault(call="result", kind="status", status=503))
        jobs = [orchestrator.submit("work", {"n": 2}), orchestrator.submit("work", {"n": 7})]
        jobs += [orchestrator.submit("broken", {}), orchestrator.submit("in_thread", {})]
        for job in jobs:
            await job.done(timeout=20)
        slow = orchestrator.submit("slow", {})
        await orchestrator.wait_for(lambda: slow.state is JobState.RUNNING)
        delivered = {"kind": "result", "outcome": "delivered"}
        text, samples = await worker.scrape_until(
            lambda samples: (
                value(samples, "worker_results_attempts_total", **delivered) == 4
                and value(samples, "worker_host_memory_used_bytes")
                and value(samples, "worker_slots", state="running") == 1
                and value(samples, "worker_link_registered") == 1  # again: the 503 was taken for a broken link
            )
        )
        orchestrator.cancel(slow.job_id)
        await worker.end()
    assert jobs[0].result == {"n": 2}
    # The task's own.
    assert value(samples, "worker_tasks_total", task_type="work", status="success") == 1
    assert value(samples, "worker_tasks_total", task_type="work", status="failure") == 1
    assert value(samples, "worker_tasks_total", task_type="broken", status="failure") == 1
    assert value(samples, "worker_tasks_duration_seconds_count", task_type="work") == 2
    assert value(samples, "worker_tasks_start_delay_seconds_count", task_type="in_thread") == 1
    assert value(samples, "worker_contract_violations_total", task_type="work") == 1
    assert value(samples, "worker_events_total", task_type="work", outcome="sent") == 2
    assert value(samples, "worker_events_total", task_type="work", outcome="blocked") == 2
    # The wire's.
    at = f"127.0.0.1:{orchestrator.port}"
    assert value(samples, "worker_polls_total", orchestrator=at, outcome="task") == 5
    assert value(samples, "worker_results_attempts_total", kind="result", outcome="failed") == 1
    assert value(samples, "worker_results_delivery_duration_seconds_count", orchestrator=at) == 4
    assert value(samples, "worker_heartbeats_total", outcome="ok") >= 1
    assert value(samples, "worker_registrations_total", outcome="ok") >= 1  # and again, after the 503
    # The gauges.
    assert value(samples, "worker_slots", state="running") == 1
    assert value(samples, "worker_slots") == 10
    assert value(samples, "worker_link_registered", orchestrator=at) == 1
    assert value(samples, "worker_outbox_depth", orchestrator=at) == 0
    assert value(samples, "worker_host_memory_used_bytes") > 0
    assert value(samples, "worker_process_memory_bytes") > 10_000_000
    assert value(samples, "app_things_total") == 9
    # Labels are bounded, and texts of errors are none.
    assert "secret text" not in text
    assert not any(job.job_id in text for job in jobs)


async def test_every_metric_of_the_table_has_its_instrument_and_every_label_its_name(tmp_path, orchestrator):
    async with observed(tmp_path, orchestrator, APP) as worker:
        for skill, params in (("work", {"n": 2}), ("use", {"name": "tiny"}), ("use", {"name": "other"})):
            await orchestrator.submit(skill, params).done(timeout=20)
        text, samples = await worker.scrape_until(lambda samples: value(samples, "worker_host_cpu_load_percent"))
        models = (await worker.health())["models"]
        await worker.end()
    documented = {prometheus_name(each): each for each in METRICS}
    for sample in samples:
        if sample.name.startswith("worker_") and not sample.name.endswith("_created"):
            metric = documented[re.sub(r"_(bucket|sum|count)$", "", sample.name)]
            labels = {name for name in sample.labels if name != "le" and not name.startswith("otel_scope")}
            assert labels == {label.replace(".", "_") for label in metric.labels}, sample.name
    seen_at_once = {
        each for each in METRICS if each.kind is Kind.GAUGE and "gpu" not in each.name and "s3" not in each.name
    }
    for gauge in seen_at_once:
        assert prometheus_name(gauge) in text, gauge.name
    assert value(samples, "worker_models", model_loader="load", state="loaded") == 1
    assert value(samples, "worker_models_uses_total", model_loader="load", state="warm") == 1
    assert value(samples, "worker_models_uses_total", model_loader="load", state="cold") == 1
    (model,) = models
    assert model.pop("bytes") >= 0
    assert model == {"name": "other", "loader": "load", "state": "loaded", "tasks": 0}


async def test_a_trace_goes_from_the_orchestrator_through_the_task_to_its_events(tmp_path, orchestrator):
    async with (
        collecting() as collector,
        observed(
            tmp_path, orchestrator, APP, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100"
        ) as worker,
    ):
        jobs = [orchestrator.submit(skill, {}, tracing_context=CARRIER) for skill in ("work", "in_thread", "broken")]
        for job in jobs:
            await job.done(timeout=20)
        slow = orchestrator.submit("slow", {})
        await orchestrator.wait_for(lambda: slow.state is JobState.RUNNING)
        orchestrator.cancel(slow.job_id)
        await collector.wait_for(lambda: collector.named("task.slow") and collector.named("task.broken"), timeout=40)
        await worker.end()
    (work,) = collector.named("task.work")
    assert (work.trace_id, work.parent_id, work.service) == (TRACE, PARENT, "observed")
    assert work.attributes["job.id"] == jobs[0].job_id
    logged = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
    finished = next(each for each in logged if each.get("action") == "task_finished" and each["skill"] == "work")
    assert (finished["trace_id"], finished["span_id"]) == (TRACE, work.span_id)
    below = {span.name: span for span in collector.spans if span.parent_id == work.span_id}
    assert below.keys() == {"validate", "skill", "deliver"}
    (inner,) = collector.named("inner")
    assert (inner.trace_id, inner.parent_id) == (TRACE, below["skill"].span_id)
    (event,) = jobs[0].events
    assert event["trace_context"]["traceparent"] == f"00-{TRACE}-{inner.span_id}-01"
    (event,) = jobs[1].events
    (in_thread,) = collector.named("task.in_thread")
    (thread,) = [span for span in collector.named("skill") if span.parent_id == in_thread.span_id]
    assert event["trace_context"]["traceparent"].split("-")[1:3] == [TRACE, thread.span_id]
    result = next(call for call in orchestrator.requests if call.call == "result" and jobs[0].job_id in str(call.json))
    assert result.headers["traceparent"] == f"00-{TRACE}-{below['deliver'].span_id}-01"
    (broken,) = collector.named("task.broken")
    assert broken.failed
    assert broken.status.startswith("PERMANENT_ERROR")
    (cancelled,) = collector.named("task.slow")
    assert (cancelled.failed, cancelled.status) == (True, "cancelled: requested")
    assert {"worker.tasks.total", "worker.slots"} <= collector.metrics  # sent at the end at the latest


BATCHED = """
from avtomatika_worker import Batch, Worker

worker = Worker(worker_type="observed", worker_id="w1")

@worker.skill(batch=Batch(max_size=2))
async def pair(n: list[int]) -> list[int]:
    return n
"""


async def test_a_batch_has_a_trace_of_its_own_that_links_those_of_its_tasks(tmp_path, orchestrator):
    async with collecting() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        async with observed(tmp_path, orchestrator, BATCHED, **environ) as worker:
            for job in [orchestrator.submit("pair", {"n": n}, tracing_context=CARRIER) for n in range(3)]:
                await job.done(timeout=20)
            _, samples = await worker.scrape_until(
                lambda samples: value(samples, "worker_batch_size_sum", task_type="pair") == 3
            )
            await collector.wait_for(lambda: len(collector.named("task.pair")) == 3, timeout=20)
            await worker.end()
    batches, tasks = collector.named("batch.pair"), {each.span_id for each in collector.named("task.pair")}
    skills = {(each.trace_id, each.span_id) for each in collector.named("skill") if each.parent_id in tasks}
    assert len(skills) == 3
    assert {link for each in batches for link in each.links} == skills
    assert all(each.parent_id == "" and each.trace_id != TRACE for each in batches)
    assert value(samples, "worker_batch_size_count", task_type="pair") == len(batches)


async def test_the_managers_methods_make_spans_and_count(tmp_path, orchestrator):
    async with collecting() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        async with observed(tmp_path, orchestrator, APP, **environ) as worker:
            job = await orchestrator.submit("again", {"carrier": CARRIER}).done(timeout=20)
            _, samples = await worker.scrape_until(
                lambda samples: value(samples, "worker_tasks_total", task_type="inner", status="success")
            )
            await collector.wait_for(lambda: collector.named("task.again"), timeout=20)
            await worker.end()
    assert job.result == {"has_otel": True}
    (again,), (inner,) = collector.named("task.again"), collector.named("task.inner")
    assert (inner.trace_id, inner.failed, inner.status) == (again.trace_id, True, "went wrong")
    assert inner.attributes["task.id"] == "t-1"
    assert collector.named("s3.put")[0].parent_id == inner.span_id
    assert (collector.named("task.elsewhere")[0].trace_id, collector.named("task.elsewhere")[0].parent_id) == (
        TRACE,
        PARENT,
    )
    assert value(samples, "worker_s3_operations_total", operation="put", outcome="ok") == 1
    assert value(samples, "worker_tasks_duration_seconds_sum", task_type="inner") == 0.5


GRPC = {
    "the protocol": {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    "a signal's protocol": {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    },
    "the port": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"},
    "the port without a scheme": {"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4317"},
}
EXPORTER = """
from opentelemetry.sdk.{signal}.export import {base}

class {name}({base}):
    def __init__(self):
        super().__init__()
        print("made {name}", flush=True)

    def export(self, *_, **__): ...
    def shutdown(self, *_, **__): ...
    def force_flush(self, *_, **__): return True
"""


@pytest.mark.parametrize("environ", GRPC.values(), ids=GRPC)
async def test_otlp_goes_over_grpc_where_the_protocol_or_the_port_says_so(tmp_path, orchestrator, environ):
    """A stand-in of the library is installed: what counts is which exporters are made."""
    package = tmp_path / "opentelemetry" / "exporter" / "otlp" / "proto" / "grpc"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for signal, base, name in (
        ("trace", "SpanExporter", "OTLPSpanExporter"),
        ("metrics", "MetricExporter", "OTLPMetricExporter"),
    ):
        module = {"trace": "trace_exporter", "metrics": "metric_exporter"}[signal]
        (package / f"{module}.py").write_text(EXPORTER.format(signal=signal, base=base, name=name), "utf-8")
    async with observed(tmp_path, orchestrator, APP, PYTHONPATH=str(tmp_path), **environ) as worker:
        await worker.end()
    assert "made OTLPSpanExporter" in worker.output
    assert "made OTLPMetricExporter" in worker.output
    assert "otlp_protocol" not in worker.output


async def test_without_the_library_for_grpc_the_start_says_what_to_do(tmp_path, orchestrator):
    app = "import sys\nsys.modules['opentelemetry.exporter.otlp.proto.grpc'] = None\n" + APP
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    async with observed(tmp_path, orchestrator, app, **environ) as worker:
        await worker.end()
    hints = [line for line in worker.output.splitlines() if '"otlp_protocol"' in line]
    assert len(hints) == 2  # one for each signal
    assert all("4318" in each and "[otlp-grpc]" in each for each in hints)


async def test_costs_are_reported(tmp_path, orchestrator):
    async with observed(tmp_path, orchestrator, APP) as worker:
        job = await orchestrator.submit("work", {"n": 3}).done(timeout=20)
        await worker.end()
    result = next(call.json for call in orchestrator.requests if call.call == "result" and job.job_id in str(call.json))
    assert result["costs"]["tokens"] == 6
    assert result["costs"]["execution_time_seconds"] >= 0


HOST = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
tracers, meters = TracerProvider(), MeterProvider([reader])
tracers.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(meters)
"""
LOOK = """
@worker.skill
async def look():
    found = reader.get_metrics_data().resource_metrics[0].scope_metrics
    return {
        "spans": [span.name for span in spans.get_finished_spans()],
        "metrics": [metric.name for scope in found for metric in scope.metrics],
        "same": trace.get_tracer_provider() is tracers and metrics.get_meter_provider() is meters,
    }
"""


async def test_an_sdk_that_the_program_has_set_up_is_used(tmp_path, orchestrator):
    async with observed(tmp_path, orchestrator, HOST + APP + LOOK) as worker:
        await orchestrator.submit("work", {}).done(timeout=20)
        looked = (await orchestrator.submit("look", {}).done(timeout=20)).result
        await worker.end()
    assert looked["same"]
    assert "task.work" in looked["spans"]
    assert "worker.tasks.total" in looked["metrics"]


CHECK_IMPORTS = """
@worker.skill
async def imported():
    import sys
    return {"otel": sorted(name for name in sys.modules if name.startswith("opentelemetry"))}
"""


async def test_switched_off_nothing_is_imported_and_skills_need_not_ask(tmp_path, orchestrator):
    async with observed(tmp_path, orchestrator, APP + CHECK_IMPORTS, WORKER_ENABLE_METRICS="false") as worker:
        assert (await orchestrator.submit("work", {"n": 2}).done(timeout=20)).result == {"n": 2}
        assert (await orchestrator.submit("imported", {}).done(timeout=20)).result == {"otel": []}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{worker.port}/metrics") as response,
        ):
            assert response.status == 404
        await worker.end()
    assert not any("traceparent" in {name.lower() for name in call.headers} for call in orchestrator.requests)


async def test_without_the_extra_the_error_says_what_to_install(tmp_path):
    (tmp_path / "my_app.py").write_text(APP, "utf-8")
    (tmp_path / "opentelemetry.py").write_text("raise ModuleNotFoundError('no', name='opentelemetry')", "utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "my_app:worker"),
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(tmp_path), "WORKER_ENABLE_METRICS": "true"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 2
    assert 'install the extra [metrics]: pip install "opentelemetry-api' in output.decode()
    assert "Traceback" not in output.decode()


async def test_a_collector_that_does_not_answer_does_not_hold_up_the_shutdown(tmp_path, orchestrator):
    async def swallow(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as silent:
        endpoint = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        async with observed(tmp_path, orchestrator, APP, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as worker:
            await orchestrator.submit("work", {}).done(timeout=20)
            async with asyncio.timeout(8):  # an exporter's own timeout is 10 s, for each signal
                await worker.end()
        await stop_accepting(*silent.sockets)
