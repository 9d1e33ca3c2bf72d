"""What a worker reports of its object stores: metrics and spans, from outside."""

from __future__ import annotations

from pathlib import Path

from avtomatika_worker.devserver import EmbeddedOrchestrator
from files.conftest import Bucket
from files.s3 import ACCESS_KEY, SECRET_KEY
from observability.observed import observed, value
from observability.otlp import collecting

APP = """
from pathlib import Path
from avtomatika_worker import TaskFiles, Worker

worker = Worker(worker_type="observed", worker_id="w1")

@worker.skill
async def shout(text: Path, files: TaskFiles):
    await files.write("loud.txt", text.read_text().upper())
    return {"loud": await files.path_to("loud.txt")}
"""


async def test_calls_to_a_store_are_counted_timed_and_spans_of_their_task(
    orchestrator: EmbeddedOrchestrator, bucket: Bucket, tmp_path: Path
) -> None:
    source = bucket.put("in/words.txt", b"words")
    store = {
        "S3_ENDPOINT_URL": bucket.server.url,
        "S3_ACCESS_KEY": ACCESS_KEY,
        "S3_SECRET_KEY": SECRET_KEY,
        "S3_DEFAULT_BUCKET": bucket.name,
        "TASK_FILES_DIR": str(tmp_path / "files"),
        "LOG_LEVEL": "DEBUG",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    async with (
        collecting() as collector,
        observed(tmp_path, orchestrator, APP, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **store) as worker,
    ):
        job = await orchestrator.submit("shout", {"text": source}).done()
        missing = await orchestrator.submit("shout", {"text": bucket.uri("in/none.txt")}).done()
        await collector.wait_for(lambda: len(collector.named("task.shout")) >= 2)
        _, samples = await worker.scrape()
        await worker.end()
    assert job.result is not None, job.describe()
    assert missing.result is None
    assert value(samples, "worker_s3_operations_total", operation="head", outcome="ok") == 1
    assert value(samples, "worker_s3_operations_total", operation="head", outcome="failed") == 1
    assert value(samples, "worker_s3_operations_duration_seconds_count", operation="get") == 1
    assert value(samples, "worker_s3_transferred_bytes_total", operation="get") == 5
    assert value(samples, "worker_s3_transferred_bytes_total", operation="put") == 5
    assert value(samples, "worker_s3_transfers") == 0
    (task,) = collector.named("task.shout", job_id=job.job_id)
    below = {span.name: span for span in collector.spans if span.parent_id == task.span_id}
    assert below.keys() == {"fetch", "validate", "skill", "upload", "deliver"}
    (get,) = collector.named("s3.get")
    assert (get.parent_id, get.attributes["s3.bucket"]) == (below["fetch"].span_id, bucket.name)
    assert get.attributes["s3.key"] == "in/words.txt"
    (put,) = collector.named("s3.put")
    assert put.parent_id == below["upload"].span_id
    assert SECRET_KEY not in worker.output
    assert ACCESS_KEY not in worker.output
