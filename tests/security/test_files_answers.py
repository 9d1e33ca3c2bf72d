"""Answers of a store that never end, or are longer than what was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from avtomatika_worker.errors import InvalidInputError, TransientError
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.store_settings import StoreSettings
from avtomatika_worker.policy.backoff import BackoffPolicy

FACTS = 'ETag: "e"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n'
SIZE = 1000
Answer = Callable[[str], tuple[str, bytes, int]]
"""Takes a request's head, returns the head of the answer, a piece of its body and how often that is sent."""


@asynccontextmanager
async def store(answer: Answer) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve, and yield the address, and the bytes of all bodies that were sent."""
    sent = [0]
    writers = set[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            while request := (await reader.readuntil(b"\r\n\r\n")).decode():
                head, piece, times = answer(request)
                writer.write(head.encode() + b"\r\n")
                for _ in range(times):
                    writer.write(piece)
                    await writer.drain()
                    sent[0] += len(piece)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent
    finally:
        server.close()
        for writer in writers:  # from Python 3.12 on the server waits for them
            writer.close()
        await server.wait_closed()


@pytest.fixture
def files_of(tmp_path):
    def make(url: str, **options: Any) -> Files:
        settings = StoreSettings(
            endpoint_url=url, access_key="a", secret_key="s", default_bucket="b", attempts=1,
            backoff=BackoffPolicy(0.01, 0.02),
        )  # fmt: skip
        return Files(tmp_path / "files", settings, **options)

    return make


async def test_a_store_that_sends_more_than_it_was_asked_for_is_cut_off(files_of):
    piece = b"A" * 65536

    def answer(request: str) -> tuple[str, bytes, int]:
        if request.startswith("HEAD"):
            return f"HTTP/1.1 200 OK\r\n{FACTS}Content-Length: {SIZE}\r\n", b"", 0
        head = f"HTTP/1.1 206 Partial\r\n{FACTS}Content-Range: bytes 0-{SIZE - 1}/{SIZE}\r\n"
        return f"{head}Content-Length: {10**12}\r\n", piece, 10**12 // len(piece)

    async with store(answer) as (url, sent):
        files = files_of(url)
        operations = files.for_task("j", "t", lambda _: None, asyncio.get_running_loop())
        task = operations.files
        with pytest.raises(TransientError):
            await task.download_file("s3://b/k")
        assert await task.list(recursive=True) == []
        assert sent[0] < 32 * 1024 * 1024, "what the sockets hold, and not much more"
        await operations.remove()
        files.close()


async def test_a_listing_without_end_is_cut_off(files_of):
    keys = "".join(
        f"<Contents><Key>in/{n}</Key><Size>1</Size><LastModified>2015-10-21T07:28:00.000Z</LastModified>"
        '<ETag>"e"</ETag></Contents>'
        for n in range(100)
    )
    body = (
        '<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated>'
        f"<NextContinuationToken>again</NextContinuationToken>{keys}</ListBucketResult>"
    ).encode()

    def answer(_request: str) -> tuple[str, bytes, int]:
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n", body, 1

    async with store(answer) as (url, _):
        files = files_of(url, most_objects=250)
        operations = files.for_task("j", "t", lambda _: None, asyncio.get_running_loop())
        task = operations.files
        with pytest.raises(InvalidInputError, match="more than 250 objects"):
            await task.download_file("s3://b/in/")
        await operations.remove()
        files.close()


async def test_a_long_error_of_a_store_takes_no_longer_to_report_than_a_short_one(files_of):
    body = b"a" * 500_000  # what could be a URL's scheme at each of its characters

    def answer(_request: str) -> tuple[str, bytes, int]:
        return f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(body)}\r\n", body, 1

    async with store(answer) as (url, _):
        files = files_of(url)
        operations = files.for_task("j", "t", lambda _: None, asyncio.get_running_loop())
        with pytest.raises(TransientError):
            await operations.files.download_file("s3://b/in/")
        await operations.remove()
        files.close()


async def test_an_object_of_one_store_is_never_taken_for_one_of_the_same_name_in_another(files_of, tmp_path):
    def saying(content: bytes) -> Answer:
        head = f"HTTP/1.1 200 OK\r\n{FACTS}Content-Length: {len(content)}\r\n"
        return lambda request: (head, b"" if request.startswith("HEAD") else content, 1)

    async with store(saying(b"evil")) as (hostile, _), store(saying(b"good")) as (trusted, _):
        for url, content in ((hostile, b"evil"), (trusted, b"good")):
            files = files_of(url, cache_dir=tmp_path / "cache", cache_limit=1000)
            operations = files.for_task("j", "t", lambda _: None, asyncio.get_running_loop())
            assert (await operations.files.download_file("s3://b/k")).read_bytes() == content
            await operations.remove()
            files.close()
