"""The cache: each object is fetched once, whoever asks, and never handed out changed."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avtomatika_worker import PermanentError
from avtomatika_worker.files.cache import BlobCache
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.objects import ObjectInfo
from files.conftest import Bucket, FilesOfTasks, store_settings

LIMIT = 1000


class Source:
    """Objects, and how often each was fetched."""

    def __init__(self, cache: BlobCache, directory: Path) -> None:
        self.fetched: list[str] = []
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self._cache = cache
        self._directory = directory
        self._number = 0

    async def get(self, uri: str, size: int = 10, etag: str | None = "v1") -> Path:
        """Have the object put into a file of its own."""
        self._number += 1
        path = self._directory / str(self._number)

        async def download(target: Path) -> None:
            self.fetched.append(uri)
            self.begun.set()
            await self.open.wait()
            target.write_bytes(uri[-1:].encode() * size)  # noqa: ASYNC240

        await self._cache.provide(uri, ObjectInfo(size, etag), path, download)
        return path


@pytest.fixture
def source(tmp_path: Path) -> Any:
    (tmp_path / "work").mkdir()
    disk = Disk()
    yield Source(BlobCache(tmp_path / "cache", LIMIT, disk), tmp_path / "work")
    disk.close()


async def test_an_object_is_fetched_once_when_ten_ask_together(source: Source) -> None:
    paths = await asyncio.gather(*(source.get("s3://b/a") for _ in range(10)))
    assert source.fetched == ["s3://b/a"]
    assert {path.read_bytes() for path in paths} == {b"a" * 10}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o444}


async def test_another_etag_or_none_is_another_object(source: Source) -> None:
    for etag in ("v1", "v2", "v1", None, None):
        await source.get("s3://b/a", etag=etag)
    assert len(source.fetched) == 4


async def test_the_least_recently_used_object_is_evicted_first(source: Source) -> None:
    for name in "abc":
        await source.get(f"s3://b/{name}", size=400)  # the third drives the first out
    await source.get("s3://b/b", size=400)
    await source.get("s3://b/d", size=400)  # and now c goes, for b has been used since
    source.fetched.clear()
    await source.get("s3://b/b", size=400)
    assert source.fetched == []
    await source.get("s3://b/c", size=400)
    assert source.fetched == ["s3://b/c"]


async def test_an_object_larger_than_the_cache_is_not_kept(source: Source, tmp_path: Path) -> None:
    path = await source.get("s3://b/a", size=LIMIT + 1)
    assert path.stat().st_size == LIMIT + 1
    assert not (tmp_path / "cache").exists()


async def test_an_entry_that_was_written_to_is_fetched_again(source: Source, tmp_path: Path) -> None:
    await source.get("s3://b/a")
    (entry,) = (tmp_path / "cache").glob("??/*")
    entry.chmod(0o600)
    entry.write_bytes(b"x" * 10)
    assert (await source.get("s3://b/a")).read_bytes() == b"a" * 10


async def test_in_a_directory_that_others_may_write_to_theirs_is_neither_taken_nor_followed(
    source: Source, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    await source.get("s3://b/a")
    (entry,) = cache.glob("??/*")
    entry.chmod(0o600)
    entry.write_bytes(b"x" * 10)
    os.utime(entry, (1, 1_000_000_000))  # as another user can make one, where the directory is like /tmp
    (lock,) = cache.glob("*.lock")
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    cache.chmod(0o1777)
    disk = Disk()
    again = Source(BlobCache(cache, LIMIT, disk), tmp_path / "work" / "..")
    assert (await again.get("s3://b/a")).read_bytes() == b"a" * 10
    assert not (tmp_path / "elsewhere").exists()
    disk.close()


async def test_a_cancelled_fetch_leaves_the_turn_to_the_next(source: Source) -> None:
    source.open.clear()
    first = asyncio.create_task(source.get("s3://b/a"))
    await source.begun.wait()
    second = asyncio.create_task(source.get("s3://b/a"))
    first.cancel()
    source.open.set()
    assert (await second).read_bytes() == b"a" * 10
    assert len(source.fetched) == 2
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failed_fetch_leaves_nothing_behind(source: Source, tmp_path: Path) -> None:
    disk = Disk()

    async def fail(target: Path) -> None:
        target.write_bytes(b"half")  # noqa: ASYNC240
        raise PermanentError("no")

    with pytest.raises(PermanentError):
        await BlobCache(tmp_path / "cache", LIMIT, disk).provide("s3://b/x", ObjectInfo(9, "e"), tmp_path / "x", fail)
    assert list((tmp_path / "cache").glob("??/*")) == []
    assert not (tmp_path / "x").exists()
    disk.close()


async def test_tasks_share_what_they_download(
    make_files: Callable[..., FilesOfTasks], bucket: Bucket, tmp_path: Path
) -> None:
    made = make_files(store_settings(bucket.server.url, bucket.name), cache_dir=tmp_path / "cache", cache_limit=2**30)
    content = os.urandom(11 * 1024 * 1024)
    uri = bucket.put("big", content)
    paths = await asyncio.gather(*(made.task(f"t{n}").download_file(uri) for n in range(5)))
    assert all(path.read_bytes() == content for path in paths)
    assert len({path.parent for path in paths}) == 5
    assert len(list((tmp_path / "cache").glob("??/*"))) == 1
    bucket.put("big", b"new")
    assert (await made.task().download_file(uri)).read_bytes() == b"new"


OTHER_PROCESS = """
import asyncio, json, sys, time
from pathlib import Path
from avtomatika_worker.files.cache import BlobCache
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.objects import ObjectInfo

base, number = Path(sys.argv[1]), sys.argv[2]

async def main():
    disk = Disk()
    cache = BlobCache(base / "cache", 10**9, disk)
    fetched = []

    async def get(name):
        async def download(target):
            fetched.append(name)
            await asyncio.sleep(0.05)
            target.write_bytes(name.encode() * 1000)
        path = base / f"{number}-{name}"
        await cache.provide(f"s3://b/{name}", ObjectInfo(1000, "e"), path, download)
        assert path.read_bytes() == name.encode() * 1000

    print("READY", flush=True)
    sys.stdin.readline()
    await asyncio.gather(*(get(name) for name in "abcdef"))
    disk.close()
    print(json.dumps(fetched))

asyncio.run(main())
"""


async def test_processes_share_one_cache(tmp_path: Path) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", OTHER_PROCESS, str(tmp_path), str(number)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"READY\n"
    outputs = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    fetched = [name for output, _ in outputs for name in json.loads(output)]
    assert sorted(fetched) == list("abcdef")
