"""A file goes into a job, is processed and comes out, orchestrator and worker having the same S3 store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from e2e.client import Client, client_of
from e2e.fleet import Fleet, Orchestrator
from files.s3 import ACCESS_KEY, SECRET_KEY, S3Server, serving

BUCKET = "payloads"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """The store."""
    with serving() as server:
        server.make_bucket(BUCKET)
        yield server


def settings(s3: S3Server, **others: str) -> dict[str, str]:
    """Return the settings that both sides know by the same names."""
    return {
        "S3_ENDPOINT_URL": s3.url,
        "S3_ACCESS_KEY": ACCESS_KEY,
        "S3_SECRET_KEY": SECRET_KEY,
        "S3_REGION": "us-east-1",
        "S3_DEFAULT_BUCKET": BUCKET,
        **others,
    }


async def test_old_and_new_orchestrators_take_results_with_files(
    fleet: Fleet, orchestrator: Orchestrator, client: Client, s3: S3Server
) -> None:
    worker = fleet.start_worker(orchestrator, "stored", **settings(s3))
    s3.put(BUCKET, "in/quiet.txt", b"hush")
    job = await client.run(worker.skill("shout"), {"source": f"s3://{BUCKET}/in/quiet.txt"})
    assert (job.status, job.error) == ("finished", "")
    assert s3.get(job.data["loud"]) == b"HUSH"
    worker.process.kill()


@pytest.mark.parametrize("orchestrator", ["1.0b30"], indirect=True)
async def test_a_file_goes_in_and_comes_out(fleet: Fleet, orchestrator: Orchestrator, s3: S3Server) -> None:
    own = fleet.start_orchestrator(orchestrator.version, extras=("s3",), **settings(s3))
    worker = fleet.start_worker(own, "files", **settings(s3))
    s3.put(BUCKET, "in/quiet.txt", b"hush")
    async with client_of(own.url) as client:
        job = await client.run(worker.skill("shout"), {"source": f"s3://{BUCKET}/in/quiet.txt"})
        record = await client.worker(worker.id)
    assert (job.status, job.error, job.data["name"]) == ("finished", "", "quiet.txt")
    assert job.data["loud"].startswith(f"s3://{BUCKET}/{job.id}/")
    assert s3.get(job.data["loud"]) == b"HUSH"
    assert record is not None
    agreed = hashlib.sha256(f"{s3.url}|{ACCESS_KEY}|{BUCKET}".encode()).hexdigest()[:16]
    assert record["capabilities"]["s3_config_hash"] == agreed
    # The orchestrator compares the hashes: it complains of the worker that has another bucket, and of no other.
    other = fleet.start_worker(own, "other", **settings(s3, S3_DEFAULT_BUCKET="other"))
    own.process.wait_for_line(lambda line: f"'{other.id}' has a different S3 configuration" in line, timeout=10)
    assert f"'{worker.id}' has a different" not in own.process.output()
    assert SECRET_KEY not in worker.process.output()
    for process in (worker.process, other.process, own.process):
        process.kill()
