"""What networks and stores do to transfers: what passes is retried, part by part; what does not, says so."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from avtomatika_worker import DependencyError, TransientError
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.observer import Observer
from avtomatika_worker.files.stores import Stores
from files.conftest import PART, Bucket, FilesOfTasks, store_settings
from files.proxy import Answer, Etag, FaultProxy, Request, Reset, Truncate, fault_proxy
from files.s3 import ACCESS_KEY

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><AWSAccessKeyId>AKIDEXAMPLEKEY</AWSAccessKeyId></Error>"
BIG = 4 * PART + 12_345


@pytest.fixture
async def proxy(bucket: Bucket) -> AsyncIterator[FaultProxy]:
    """The proxy in front of the server."""
    async with fault_proxy(bucket.server.url) as proxy:
        yield proxy


@pytest.fixture
async def files(make_files: Callable[..., FilesOfTasks], bucket: Bucket, proxy: FaultProxy) -> FilesOfTasks:
    """Files of tasks whose store is behind the proxy."""
    return make_files(store_settings(proxy.url, bucket.name), notice_after=0.0)


@pytest.fixture(scope="module")
def content() -> bytes:
    """More than four parts of content."""
    return os.urandom(BIG)


def reading(request: Request) -> bool:
    return request.method == "GET"


def second_part(request: Request) -> bool:
    return f"range: bytes={PART}-".encode() in request.head.lower()


def a_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber=2" in request.path


def actions(caplog: pytest.LogCaptureFixture, action: str) -> int:
    return sum(getattr(record, "action", "") == action for record in caplog.records)


# ---------------------------------------------------------------------------------------------------- down


@pytest.mark.parametrize("fault", [Truncate(0), Truncate(100_000), Reset(0), Answer("503 Slow Down", SLOW_DOWN)])
async def test_a_part_that_breaks_is_fetched_again_and_the_others_are_not(
    files: FilesOfTasks, bucket: Bucket, proxy: FaultProxy, content: bytes, fault: Truncate | Reset | Answer,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    uri = bucket.put("big", content)
    proxy.some(fault, 2, second_part)
    path = await files.task().download_file(uri)
    assert path.read_bytes() == content
    assert (proxy.faults, proxy.count("GET")) == (2, 5 + 2)
    assert actions(caplog, "transfer_retry") == 2


@pytest.mark.parametrize("fault", [Truncate(1), Reset(0), Answer("503 Slow Down", SLOW_DOWN)])
async def test_a_small_object_is_fetched_again(
    files: FilesOfTasks, bucket: Bucket, proxy: FaultProxy, fault: Truncate | Reset | Answer
) -> None:
    uri = bucket.put("small", b"content")
    proxy.some(fault, 3, reading)
    assert (await files.task().download_file(uri)).read_bytes() == b"content"


async def test_a_store_that_stays_broken_is_a_transient_failure_and_leaves_nothing(
    files: FilesOfTasks, bucket: Bucket, proxy: FaultProxy, content: bytes
) -> None:
    uri = bucket.put("big", content)
    proxy.some(Truncate(1000), 1000, second_part)
    task = files.task()
    with pytest.raises(TransientError, match=uri):
        await task.download_file(uri)
    assert proxy.faults == 4
    assert await task.list(recursive=True) == []


async def test_a_refusal_is_final_at_once_and_reveals_no_secret(
    files: FilesOfTasks, bucket: Bucket, proxy: FaultProxy
) -> None:
    uri = bucket.put("small", b"content")
    proxy.some(Answer("403 Forbidden", DENIED), 100, lambda _: True)
    with pytest.raises(DependencyError, match="denied") as caught:
        await files.task().download_file(uri)
    assert proxy.faults == 1
    assert "AKID" not in repr(caught.value) + str(caught.value.details) + str(caught.value.__cause__)


async def test_an_object_that_changes_while_it_is_read_is_not_put_together(
    files: FilesOfTasks, bucket: Bucket, proxy: FaultProxy, content: bytes
) -> None:
    uri = bucket.put("big", content)
    proxy.some(Etag('"another"'), 1, second_part)
    task = files.task()
    with pytest.raises(TransientError, match="replaced"):
        await task.download_file(uri)
    proxy.some(Etag('"another"'), 5, lambda request: request.method == "HEAD")
    with pytest.raises(TransientError, match="replaced"):  # the store itself refuses: If-Match
        await task.download_file(uri)
    assert await task.list(recursive=True) == []


async def test_a_listing_that_breaks_is_asked_for_again(files: FilesOfTasks, bucket: Bucket, proxy: FaultProxy) -> None:
    bucket.put("d/a", b"1")
    proxy.some(Truncate(10), 2, lambda request: "list-type=2" in request.path)
    task = files.task()
    assert await task.list(await task.download_file(bucket.uri("d/"))) == ["a"]


# ---------------------------------------------------------------------------------------------------- up


@pytest.mark.parametrize("fault", [Reset(100_000), Answer("503 Slow Down", SLOW_DOWN)])
async def test_a_part_that_breaks_is_sent_again_and_the_others_are_not(
    files: FilesOfTasks, bucket: Bucket, proxy: FaultProxy, content: bytes, fault: Reset | Answer
) -> None:
    proxy.some(fault, 2, a_part)
    task = files.task()
    await task.write("big", content)
    uri = await task.upload_file("big")
    assert bucket.server.get(uri) == content
    assert (proxy.faults, proxy.count("PUT")) == (2, 5 + 2)
    metadata = files.stored(uri)
    assert metadata is not None
    assert metadata.size == BIG
    assert (metadata.etag or "").endswith("-5")


@pytest.mark.parametrize("fault", [Reset(3), Truncate(0), Answer("503 Slow Down", SLOW_DOWN)])
async def test_a_small_file_is_sent_again(
    files: FilesOfTasks, bucket: Bucket, proxy: FaultProxy, fault: Reset | Truncate | Answer
) -> None:
    proxy.some(fault, 2, lambda request: request.method == "PUT")
    task = files.task()
    await task.write("small", "content")
    assert bucket.server.get(await task.upload_file("small")) == b"content"


async def test_an_upload_that_fails_for_good_says_so(files: FilesOfTasks, proxy: FaultProxy, content: bytes) -> None:
    task = files.task()
    await task.write("big", content)
    proxy.some(Answer("503 Slow Down", SLOW_DOWN), 1000, a_part)
    with pytest.raises(TransientError, match="s3://"):
        await task.upload_file("big")
    proxy.some(Answer("403 Forbidden", DENIED), 1000, lambda request: request.method != "GET")
    with pytest.raises(DependencyError):
        await task.upload_file("big")


async def test_a_missing_bucket_is_reported_as_such(make_files: Callable[..., FilesOfTasks], bucket: Bucket) -> None:
    task = make_files(store_settings(bucket.server.url, bucket.name, sources=("s3://never-made/",))).task()
    await task.write("a", "x")
    with pytest.raises(DependencyError, match="no such bucket"):
        await task.upload_file("a", "s3://never-made/a")


# ---------------------------------------------------------------------------------------------------- credentials


@pytest.mark.parametrize(("keys", "expected", "token"), [(True, ACCESS_KEY, False), (False, "FROMENVIRONMENT", True)])
async def test_without_keys_those_of_the_environment_are_used_and_never_mixed(
    make_files: Callable[..., FilesOfTasks], bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch,
    keys: bool, expected: str, token: bool,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    settings = store_settings(proxy.url, bucket.name)
    files = make_files(settings if keys else replace(settings, access_key=None, secret_key=None))
    await files.task().download_file(bucket.put("a", b"x"))
    heads = [request.head.decode() for request in proxy.requests]
    assert all(f"Credential={expected}/" in head for head in heads)
    assert {"x-amz-security-token" in head for head in heads} == {token}


# ---------------------------------------------------------------------------------------------------- both


async def test_a_long_transfer_reports_how_far_it_is(
    files: FilesOfTasks, bucket: Bucket, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await files.task().download_file(bucket.put("big", content))
    assert actions(caplog, "transfer_progress") == 4
    assert actions(caplog, "transfer_done") == 1
    assert files.reported[-1].startswith(f"download of {bucket.uri('big')}: ")
    assert all(isinstance(record.msg, str) for record in caplog.records if record.levelno >= logging.INFO)


async def test_a_cancelled_transfer_ends_at_once_and_leaves_nothing(
    files: FilesOfTasks, bucket: Bucket, proxy: FaultProxy, content: bytes
) -> None:
    uri = bucket.put("big", content)
    proxy.some(Answer("503 Slow Down", SLOW_DOWN), 1000, second_part)
    task = files.task()
    transfer = asyncio.create_task(task.download_file(uri))
    async with asyncio.timeout(10):
        while not proxy.faults:  # noqa: ASYNC110 - the proxy has nothing to wait for
            await asyncio.sleep(0.005)
    transfer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await transfer
    assert await task.list(recursive=True) == []


async def test_a_listing_of_2001_keys_comes_whole_page_by_page(bucket: Bucket, proxy: FaultProxy) -> None:
    keys = [f"many/{n % 7}/{n:05}.txt" for n in range(2001)]  # three pages
    await asyncio.to_thread(bucket.server.put_many, bucket.name, keys, b"x")
    disk = Disk()
    stores = Stores(store_settings(proxy.url, bucket.name), disk, Observer())
    found = await stores.list(await stores.locate(bucket.uri("many/")), lambda _: None)
    stores.close()
    disk.close()
    assert sorted(found) == sorted(key.removeprefix("many/") for key in keys)
    assert {info.size for info in found.values()} == {1}
    assert len(proxy.requests) == 3
