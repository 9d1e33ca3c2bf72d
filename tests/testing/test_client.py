"""``WorkerClient``: a worker under test, from code without an event loop."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from avtomatika_worker import ConfigError, PermanentError, TaskContext, TaskFiles, Worker
from avtomatika_worker.testing import WorkerClient


@pytest.fixture
def worker():
    worker = Worker(worker_type="test")

    @worker.skill
    async def double(number: int) -> int:
        return 2 * number

    @worker.skill
    async def words(count: int) -> AsyncIterator[str]:
        for number in range(count):
            yield f"{number} "
        if not count:
            raise PermanentError("no words")

    return worker


def test_a_task_runs_and_its_result_comes_back(worker):
    with WorkerClient(worker) as c:
        assert c.run("double", {"number": 21}).data == {"result": 42}
        assert c.run("double", {"number": "many"}).error.code == "INVALID_INPUT_ERROR"
        with pytest.raises(ValueError, match="did you mean 'double'"):
            c.run("duoble")
    assert not [each for each in threading.enumerate() if each.name.startswith("worker-client")]
    with WorkerClient(worker, settings={"max_concurrent_tasks": 1}) as c:
        assert c.run("double", {"number": 1}).ok


def test_a_stream_comes_as_it_is_yielded(worker):
    with WorkerClient(worker) as c:
        assert "".join(c.stream("words", {"count": 3})) == "0 1 2 "
        with contextlib.closing(c.stream("words", {"count": 3})) as chunks:
            assert next(chunks)
        with pytest.raises(PermanentError, match="no words"):
            list(c.stream("words", {"count": 0}))


def test_files_are_stored_for_tasks_and_a_timeout_cancels(worker):
    cancelled = threading.Event()

    @worker.skill
    async def read(file: str, files: TaskFiles) -> str:
        return await files.read(await files.download_file(file))

    @worker.skill
    async def wait(ctx: TaskContext):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with WorkerClient(worker) as c:
        assert c.run("read", {"file": c.store("a.txt", "hello")}).data == {"result": "hello"}
        with pytest.raises(TimeoutError):
            c.run("wait", timeout=0.1)
        assert cancelled.wait(10)


def test_threads_may_share_it(worker):
    together = threading.Barrier(2, timeout=20)

    @worker.skill
    def meet():
        together.wait()

    with WorkerClient(worker) as c, ThreadPoolExecutor(2) as threads:
        assert all(each.result().ok for each in [threads.submit(c.run, "meet") for _ in range(2)])


def test_a_running_event_loop_is_not_blocked_but_refused(worker):
    client = WorkerClient(worker)

    async def enter():
        with client:
            pass

    async def run():
        client.run("double", {"number": 1})

    with pytest.raises(RuntimeError, match="async with WorkerHarness"):
        asyncio.run(enter())
    with client, pytest.raises(RuntimeError, match="async with WorkerHarness"):
        asyncio.run(run())


def test_what_is_wrong_with_the_worker_is_raised_where_the_block_begins(worker):
    client = WorkerClient(worker, settings={"max_concurrent_tasks": 0})
    with pytest.raises(ConfigError), client:
        pass
    with pytest.raises(RuntimeError, match="with WorkerClient"):
        client.run("double")
    fine = WorkerClient(Worker(worker_type="test"))
    with fine, pytest.raises(RuntimeError, match="already running"):
        fine.__enter__()
