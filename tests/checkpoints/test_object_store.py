"""Checkpoints in an object store: where they are, who may read them there, and what a store that fails means."""

import asyncio

import pytest

from avtomatika_worker import TaskContext, TaskFiles, TransientError, Worker
from avtomatika_worker.checkpoints.checkpoint_service import Checkpoints
from avtomatika_worker.checkpoints.object_blobs import ObjectBlobs
from avtomatika_worker.checkpoints.saved_state import written
from avtomatika_worker.checkpoints.versions import Place
from avtomatika_worker.execution.children import Children
from avtomatika_worker.files.sources import OWN
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.protocol.work import work_key
from files.conftest import bucket, make_files, s3, store_settings, worker_settings
from files.proxy import Answer, fault_proxy
from services.conftest import actions, running

__all__ = ["bucket", "make_files", "s3"]

KEY = "ab" * 32


@pytest.fixture
def worker():
    return Worker(worker_type="test")


async def keys(bucket):
    """Return the keys of all objects."""
    text = (await asyncio.to_thread(bucket.server._call, "GET", f"/{bucket.name}?list-type=2")).decode()  # noqa: SLF001
    return [part.partition("<")[0] for part in text.split("<Key>")[1:]]


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
async def test_another_worker_goes_on_from_what_is_in_the_store(orchestrator, worker, bucket, tmp_path, key):
    seen = []

    @worker.skill
    async def train(ctx: TaskContext):
        saved = await ctx.checkpoint.load()
        if saved is None:
            await ctx.files.write("weights.bin", b"Minerva" * 1000)
            await ctx.checkpoint.save({"epoch": 1, "name": "Jupiter"}, files=["weights.bin"])
            seen.extend(await keys(bucket))
            raise TransientError("again")
        return {"saved": saved, "weights": len(await ctx.files.read("weights.bin", "rb"))}

    def settings(name):
        own = worker_settings(bucket, tmp_path / name, state_dir=tmp_path / name / "state", checkpoint_key=key)
        return {**own, "worker_id": name}

    async with running(worker, orchestrator, **settings("w1")):
        job = orchestrator.submit("train")
        await orchestrator.wait_for(lambda: job.attempts == 2 or seen or None)
    async with running(worker, orchestrator, **settings("w2")):
        await job.done()
    assert job.result == {"saved": {"epoch": 1, "name": "Jupiter"}, "weights": 7000}
    assert len(seen) == 2
    assert all(each.startswith(f"{OWN}/") for each in seen), "never below jobs/, which orchestrators delete"
    assert await keys(bucket) == []


async def test_what_is_in_the_store_is_encrypted_with_a_key(orchestrator, worker, bucket, tmp_path):
    contents = []

    @worker.skill
    async def train(ctx: TaskContext):
        await ctx.files.write("weights.bin", b"Minerva" * 1000)
        await ctx.checkpoint.save({"name": "Jupiter"}, files=["weights.bin"])
        contents.extend([bucket.get(key) for key in await keys(bucket)])

    settings = worker_settings(bucket, tmp_path, state_dir=tmp_path / "state", checkpoint_key=KEY)
    async with running(worker, orchestrator, **settings):
        await orchestrator.submit("train").done()
    assert len(contents) == 2
    assert not any(word in content for word in (b"Minerva", b"Jupiter", b"weights") for content in contents)


@pytest.mark.parametrize("sources", [None, "everything"])
async def test_no_task_may_read_or_write_there(orchestrator, worker, bucket, tmp_path, sources):
    @worker.skill
    async def read(uri: str, files: TaskFiles):
        await files.download_file(uri)

    @worker.skill
    async def write(uri: str, files: TaskFiles):
        await files.write("x", "planted")
        await files.upload_file("x", uri)

    bucket.put(f"{OWN}/key/version/head", b"another task's")
    uris = [bucket.uri(f"{OWN}/key/version/head"), bucket.uri(f"{OWN}/")]
    settings = worker_settings(bucket, tmp_path, state_dir=tmp_path / "state")
    if sources:
        settings["file_sources"] = (f"s3://{bucket.name}/",)
    async with running(worker, orchestrator, **settings):
        jobs = [
            orchestrator.submit("read", {"uri": uri}, job_id=f"{OWN}" if not n else None) for n, uri in enumerate(uris)
        ]
        jobs.append(orchestrator.submit("write", {"uri": bucket.uri(f"{OWN}/key/version/0")}))
        for job in jobs:
            await job.done()
            assert job.error["code"] == "SECURITY_ERROR", job.error
    assert await keys(bucket) == [f"{OWN}/key/version/head"]


def any_call(_request):
    return True


DENIED = Answer("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>")
SLOW_DOWN = Answer("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>")


@pytest.fixture
async def make_checkpoints(make_files, bucket):
    """Make the checkpoints of a worker in the bucket, reached by a URL."""
    children = Children()

    def make(url, max_age=3600.0):
        files = make_files(store_settings(url, bucket.name)).files
        place = Place(ObjectBlobs(files.own_objects), files.disk, None, 10**9, max_age)
        return Checkpoints(place, files, "w1", interval=0.0, start=children.start)

    yield make
    await children.cancel()


def keeper_of(checkpoints):
    work = work_key("http://one", Task(job_id="job", task_id="task", type="save"))
    return checkpoints.keeper(work, None, "task", lambda: None)


async def test_a_store_that_does_not_answer_fails_a_load_since_to_begin_again_could_cost_more(make_checkpoints, bucket):
    async with fault_proxy(bucket.server.url) as proxy:
        keeper = keeper_of(make_checkpoints(proxy.url))
        assert await keeper.save(written(1), ())
        proxy.some(SLOW_DOWN, 3, any_call)
        assert (await keeper.load()).state.read() == 1, "what passes is tried again"
        proxy.some(SLOW_DOWN, 1000, any_call)
        with pytest.raises(TransientError):
            await keeper.load()
        assert not await keeper.save(written(2), ())
        await keeper.settle(wanted=True)


async def test_a_store_that_refuses_this_worker_fails_no_task(make_checkpoints, bucket, caplog):
    async with fault_proxy(bucket.server.url) as proxy:
        keeper = keeper_of(make_checkpoints(proxy.url))
        proxy.some(DENIED, 1000, any_call)
        assert await keeper.load() is None
        assert not await keeper.save(written(1), ())
        await keeper.settle(wanted=True)
    assert "access denied" in actions(caplog, "checkpoint_unreadable")[0]
    assert actions(caplog, "checkpoint_failed")


async def test_what_is_too_old_is_removed_from_the_store(make_checkpoints, bucket):
    checkpoints = make_checkpoints(bucket.server.url, max_age=1.5)
    keeper = keeper_of(checkpoints)
    await keeper.save(written(1), ())
    bucket.put("other", b"not ours")
    await checkpoints.sweep()
    assert len(await keys(bucket)) == 2
    async with asyncio.timeout(10):  # the store's clock is in whole seconds
        while True:
            await checkpoints.sweep()
            if await keys(bucket) == ["other"]:
                break
            await asyncio.sleep(0.05)
    assert await keeper.load() is None
    await keeper.settle(wanted=True)
