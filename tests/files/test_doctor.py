"""``worker doctor`` and the store of files: a probe is written, read and deleted, and what goes wrong is reported."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator
from files.conftest import Bucket
from files.proxy import Answer, FaultProxy, Request, fault_proxy
from files.s3 import ACCESS_KEY, SECRET_KEY

Found = tuple[int, list[tuple[str, str, str]]]
Doctor = Callable[..., Awaitable[Found]]
DENIED = Answer("403 Forbidden", b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")


@pytest.fixture
def doctor(orchestrator: EmbeddedOrchestrator, tmp_path: Path) -> Doctor:
    """Run the command; returns its exit code, and severity, text and advice of what it found about files."""

    async def run(**environment: str) -> Found:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "avtomatika_worker.cli", "doctor", "--json"),
            cwd=tmp_path,
            env={
                "PATH": os.defpath,
                "ORCHESTRATOR_URL": orchestrator.url,
                "WORKER_TOKEN": orchestrator.token,
                "WORKER_ID": "w1",
                "WORKER_PORT": "0",
                "XDG_STATE_HOME": str(tmp_path),
                "TASK_FILES_DIR": str(tmp_path / "files"),
                **environment,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert err == b"", err.decode()
        assert process.returncode is not None
        assert SECRET_KEY not in out.decode()
        found = [each for each in json.loads(out)["findings"] if each["section"] == "Files"]
        return process.returncode, [(each["severity"], each["text"], each["advice"]) for each in found]

    return run


@pytest.fixture
async def proxy(bucket: Bucket) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the server."""
    async with fault_proxy(bucket.server.url) as proxy:
        yield proxy


def environment(url: str, bucket: str | None) -> dict[str, str]:
    keys = {"S3_ENDPOINT_URL": url, "S3_ACCESS_KEY": ACCESS_KEY, "S3_SECRET_KEY": SECRET_KEY}
    return keys | ({"S3_DEFAULT_BUCKET": bucket} if bucket else {})


async def test_a_probe_is_written_read_and_deleted(doctor: Doctor, bucket: Bucket, proxy: FaultProxy) -> None:
    code, found = await doctor(**environment(proxy.url, bucket.name))
    ((severity, text, _),) = found
    assert (code, severity) == (0, "ok")
    assert text.startswith(f"s3://{bucket.name}: a probe was written, read and deleted in ")
    assert [request.method for request in proxy.requests] == ["PUT", "HEAD", "GET", "POST"]  # POST: deletes
    assert b"<Key>" not in bucket.get("")


@pytest.mark.parametrize(
    ("method", "severity", "text", "code"),
    [
        ("PUT", "error", "cannot write to s3://{}: access denied", 2),
        ("GET", "error", "cannot read what was written to s3://{}: access denied", 2),
        ("POST", "warning", "the probe cannot be deleted: access denied", 1),
    ],
)
async def test_permissions_that_the_keys_lack_are_reported_with_a_remedy(
    doctor: Doctor, bucket: Bucket, proxy: FaultProxy, method: str, severity: str, text: str, code: int
) -> None:
    def refused(request: Request) -> Answer | None:
        return DENIED if request.method == method else None

    proxy.choose = refused
    returned, found = await doctor(**environment(proxy.url, bucket.name))
    bad = [each for each in found if each[0] != "ok"]
    assert (returned, len(bad)) == (code, 1)
    assert bad[0][0] == severity
    assert bad[0][1].startswith(text.format(bucket.name))
    assert ("S3_ACCESS_KEY" if severity == "error" else f"delete s3://{bucket.name}/avtomatika-doctor/") in bad[0][2]
    assert (b"<Key>" in bucket.get("")) == (method == "POST")


async def test_a_missing_bucket_and_an_unreachable_store_are_distinguished(
    doctor: Doctor, bucket: Bucket, proxy: FaultProxy
) -> None:
    code, ((severity, text, advice),) = await doctor(**environment(bucket.server.url, "no-such-bucket"))
    assert (code, severity) == (2, "error")
    assert "there is no such bucket" in text
    assert "S3_DEFAULT_BUCKET" in advice
    proxy.choose = lambda _: Answer("500 Oops")
    code, ((severity, text, advice),) = await doctor(**environment(proxy.url, bucket.name))
    assert (code, severity) == (2, "error")
    assert "S3_ENDPOINT_URL" in advice
    assert proxy.count("PUT") == 1


async def test_a_directory_in_place_of_a_store_is_tried_too(doctor: Doctor, tmp_path: Path) -> None:
    code, ((severity, text, _),) = await doctor(WORKER_FILE_STORE_ROOT=str(tmp_path / "store"))
    assert (code, severity) == (0, "ok")
    assert text.startswith(f"file://{tmp_path}/store: a probe was written, read and deleted")
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


async def test_without_a_place_for_results_nothing_is_tried(doctor: Doctor, proxy: FaultProxy) -> None:
    code, ((severity, text, advice),) = await doctor(**environment(proxy.url, None))
    assert (code, severity, proxy.requests) == (0, "note", [])
    assert "no bucket" in text
    assert "S3_DEFAULT_BUCKET" in advice
    code, ((severity, text, _),) = await doctor()
    assert (code, severity) == (0, "note")
    assert "no store is configured" in text
