"""Results over MAX_RESULT_BYTES with a store: what is too large goes there, and the result says where."""

import json
from typing import TypedDict

import pytest

from avtomatika_worker import S3Uri, TaskFiles
from files.conftest import worker_settings
from services.conftest import running


@pytest.fixture
def run(worker, orchestrator, bucket, tmp_path):
    async def run(skill, params=None, **settings):
        chosen = worker_settings(bucket, tmp_path, max_result_bytes=20_000, **settings)
        async with running(worker, orchestrator, **chosen):
            job = orchestrator.submit(skill, params or {})
            await orchestrator.wait_for(lambda: job.state.final, timeout=20)
        assert not list((tmp_path / "payloads").glob("*"))
        assert max(len(each.body) for each in orchestrator.requests if each.call == "result") < 30_000
        return job

    return run


async def test_the_largest_values_go_to_the_store_and_the_others_stay(worker, bucket, run):
    rows = [{"n": number, "text": "ü"} for number in range(2_000)]

    @worker.skill
    async def report() -> dict[str, object]:
        return {"rows": rows, "total": 7, "note": "z" * 5_000, "an odd key/..": "x" * 30_000}

    job = await run("report")
    assert job.state.value == "finished"
    assert (job.result["total"], job.result["note"]) == (7, "z" * 5_000)
    stored = {key: job.result[key] for key in ("rows", "an odd key/..")}
    for key, value in (("rows", rows), ("an odd key/..", "x" * 30_000)):
        uri = stored[key]
        assert uri.startswith(f"s3://{bucket.name}/{job.job_id}/{job.task_id}/oversized/")
        content = bucket.get(uri.removeprefix(f"s3://{bucket.name}/"))
        assert json.loads(content) == value
        assert job.data_metadata[key]["uri"] == uri
        assert job.data_metadata[key]["size"] == len(content)


async def test_files_of_the_result_are_still_uploaded_and_described(worker, bucket, run, tmp_path, caplog):
    @worker.skill
    async def both(files: TaskFiles) -> dict[str, object]:
        return {"file": await files.write("out.txt", "hello"), "text": "x" * 30_000}

    job = await run("both")
    assert bucket.get(job.result["file"].removeprefix(f"s3://{bucket.name}/")) == b"hello"
    assert set(job.data_metadata) == {"file", "text"}
    assert [each.getMessage().rpartition(": ")[2] for each in caplog.records if is_too_large(each)] == ["text"]


def is_too_large(record):
    return getattr(record, "action", "") == "result_too_large"


async def test_what_cannot_get_small_enough_fails_before_anything_is_stored(worker, bucket, run):
    @worker.skill
    async def keys() -> dict[str, object]:
        return {f"key-{number}-{'k' * 100}": number for number in range(1_000)}

    job = await run("keys")
    assert job.error["details"]["limit"] == 20_000
    with pytest.raises(Exception, match=r"404|NoSuchKey|Not Found"):
        bucket.get(f"{job.job_id}/{job.task_id}/oversized/0.json")
    assert job.error["code"] == "PERMANENT_ERROR"
    assert "its data has no large values" in job.error["message"]


LARGE = list(range(10_000))


async def test_a_value_whose_type_allows_no_uri_fails_with_advice(worker, bucket, run):
    @worker.skill
    async def numbers() -> list[int]:
        return LARGE

    job = await run("numbers")
    assert (job.state.value, job.error["code"]) == ("quarantined", "PERMANENT_ERROR")
    size = job.error["details"]["bytes"]
    assert job.error["details"] == {"bytes": size, "limit": 20_000}
    start = (
        f"the result is {size} bytes long, but at most 20000 (MAX_RESULT_BYTES) can be sent; data.result cannot move"
    )
    assert job.error["message"].startswith(start)
    assert "return a file (a Path), or make the type a union with S3Uri" in job.error["message"]


class Report(TypedDict):
    rows: list[int]
    text: str


class LooseReport(TypedDict):
    rows: list[int] | S3Uri
    text: str


async def strict() -> Report:
    return {"rows": LARGE[:3_000], "text": "x" * 15_000}


async def loose() -> LooseReport:
    return {"rows": LARGE, "text": "short"}


async def union() -> list[int] | S3Uri:
    return LARGE


@pytest.mark.parametrize(("skill", "goes"), [(strict, "text"), (loose, "rows"), (union, "result")])
async def test_only_a_value_whose_type_allows_a_uri_goes(worker, run, skill, goes):
    worker.skill(skill)
    job = await run(skill.__name__)
    assert [key for key, value in job.result.items() if f"-{key}.json" in str(value)] == [goes]


@pytest.mark.parametrize("status", ["success", "partial"])
async def test_a_written_schema_counts_too_and_says_nothing_of_statuses_of_its_own(worker, run, status):
    schema = {"type": "object", "properties": {"rows": {"type": "array"}}}

    @worker.skill(output_schema=schema, output_statuses=["partial"])
    async def written():
        return {"status": status, "data": {"rows": LARGE}}

    job = await run("written")
    if status == "success":
        assert job.error["code"] == "PERMANENT_ERROR"
        assert "data.rows cannot move to the object store" in job.error["message"]
    else:
        assert job.result["rows"].endswith("-rows.json")


async def test_a_store_that_refuses_makes_the_task_fail_as_any_upload_does(worker, bucket, run):
    @worker.skill
    async def large() -> dict[str, object]:
        return {"text": "x" * 30_000}

    job = await run("large", s3_default_bucket="no-such-bucket")
    assert job.state.value in {"failed", "quarantined"}
    assert job.error["code"] != "CONTRACT_VIOLATION_ERROR"
