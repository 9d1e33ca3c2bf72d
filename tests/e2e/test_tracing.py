"""Traces at a published orchestrator."""

from __future__ import annotations

import asyncio

from e2e.client import client_of
from e2e.fleet import Fleet
from observability.otlp import collecting

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def test_a_task_is_a_span_of_the_trace_that_came_with_it(fleet: Fleet) -> None:
    """1.0b30 puts the client's trace into the job's record but not into its tasks (observed): they start traces."""
    async with collecting() as collector:
        orchestrator = fleet.start_orchestrator("1.0b30")
        worker = fleet.start_worker(
            orchestrator,
            "traced",
            WORKER_ENABLE_METRICS="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="100",
        )
        async with client_of(orchestrator.url) as client:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            job = await client.wait(await client.submit(worker.skill("traced"), {}, headers=headers))
        task = f"task.{worker.skill('traced')}"
        await collector.wait_for(lambda: collector.named(task))
        (span,) = collector.named(task)
        came = job.data["tracing_context"].get("traceparent")
        assert span.parent_id == (came.split("-")[2] if came else "")
        below = {each.name for each in collector.spans if each.parent_id == span.span_id}
        assert below == {"validate", "skill", "deliver"}
        worker.process.terminate()
        assert await asyncio.to_thread(worker.process.wait, 15) == 0  # the collector has to answer meanwhile
