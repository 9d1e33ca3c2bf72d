"""An S3 server for all tests of files; every test gets a bucket of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from avtomatika_worker import TaskFiles, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.store_settings import StoreSettings
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.protocol.messages import FileMetadata
from files.s3 import ACCESS_KEY, SECRET_KEY, S3Server, serving

PART = 5 * 1024 * 1024
QUICK = BackoffPolicy(0.01, 0.05)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server."""

    server: S3Server
    name: str

    def put(self, key: str, content: bytes) -> str:
        """Store an object and return its URI."""
        self.server.put(self.name, key, content)
        return self.uri(key)

    def get(self, key: str) -> bytes:
        """Return an object."""
        return self.server.get(self.uri(key))

    def uri(self, key: str) -> str:
        """Return the URI of an object."""
        return f"s3://{self.name}/{key}"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """The server."""
    with serving() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """An empty bucket."""
    name = f"bucket-{next(_numbers)}"
    s3.make_bucket(name)
    return Bucket(s3, name)


def store_settings(endpoint: str, bucket: str | None, **others: Any) -> StoreSettings:
    """Return settings for that server, with quick retries and the smallest parts."""
    options = {"part_size": PART, "backoff": QUICK, "attempts": 4, **others}
    return StoreSettings(
        endpoint_url=endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, default_bucket=bucket, **options
    )


class FilesOfTasks:
    """Makes `TaskFiles`, and removes what they leave."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.reported: list[str] = []
        self._made: list[FileOperations] = []

    def task(self, task_id: str = "task", job_id: str = "job") -> TaskFiles:
        """Return the files of a task."""
        made = self.files.for_task(job_id, task_id, self.reported.append, asyncio.get_running_loop())
        self._made.append(made)
        return made.files

    def stored(self, uri: str) -> FileMetadata | None:
        """Return what is known of an object that the last task has stored."""
        return self._made[-1].stored(uri)

    async def remove(self) -> None:
        """Do what is done after the tasks."""
        for made in self._made:
            await made.remove()

    async def aclose(self) -> None:
        """Remove everything."""
        await self.remove()
        self.files.close()


@pytest.fixture
async def make_files(tmp_path: Path) -> AsyncIterator[Callable[..., FilesOfTasks]]:
    """Make `FilesOfTasks` from settings of a store, and what `Files` takes besides."""
    made: list[FilesOfTasks] = []

    def make(stores: StoreSettings, **options: Any) -> FilesOfTasks:
        made.append(FilesOfTasks(Files(tmp_path / "payloads", stores, **options)))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


@pytest.fixture
async def files(make_files: Callable[..., FilesOfTasks], bucket: Bucket) -> FilesOfTasks:
    """Files of tasks, with the bucket as their store."""
    return make_files(store_settings(bucket.server.url, bucket.name))


@pytest.fixture
async def offline(make_files: Callable[..., FilesOfTasks]) -> FilesOfTasks:
    """Files of tasks without any store."""
    return make_files(StoreSettings())


def worker_settings(bucket: Bucket, tmp_path: Path, **others: Any) -> dict[str, Any]:
    """Return a worker's settings for the bucket."""
    return {
        "s3_endpoint_url": bucket.server.url,
        "s3_access_key": ACCESS_KEY,
        "s3_secret_key": SECRET_KEY,
        "s3_default_bucket": bucket.name,
        "task_files_dir": tmp_path / "payloads",
        **others,
    }


@pytest.fixture
def worker() -> Worker:
    """A worker."""
    return Worker(worker_type="test")


@pytest.fixture
async def orchestrator() -> AsyncIterator[EmbeddedOrchestrator]:
    """An orchestrator."""
    async with EmbeddedOrchestrator(poll_time=1.0) as started:
        yield started
