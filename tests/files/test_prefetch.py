"""Files of the next tasks come, and those of the last go, while a skill computes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from avtomatika_worker import Handler, Outcome, SkillBlueprint, TaskContext, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, JobRecord, JobState
from files.conftest import Bucket, worker_settings
from files.proxy import FaultProxy, Request, Stall, fault_proxy
from services.conftest import FAST, actions, running


@pytest.fixture
async def proxy(bucket: Bucket) -> AsyncIterator[FaultProxy]:
    """The proxy in front of the store."""
    async with fault_proxy(bucket.server.url) as proxy:
        yield proxy


@pytest.fixture
def settings(bucket: Bucket, proxy: FaultProxy, tmp_path: Path) -> dict[str, Any]:
    """A worker's settings, with the store behind the proxy."""
    return {**FAST, **worker_settings(bucket, tmp_path, s3_endpoint_url=proxy.url)}


class Device:
    """Computes one thing at a time, when the test lets it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.now = 0
        self.most = 0
        self.free = asyncio.Semaphore(0)

    async def compute(self, source: Path) -> Path:
        """Take a while, and return the file under another name."""
        self.names.append(source.name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.free.acquire()
            return await asyncio.to_thread(source.rename, source.with_suffix(".out"))
        finally:
            self.now -= 1


@pytest.fixture
def device() -> Device:
    """A device that is busy until it is let go on."""
    return Device()


async def until(holds: Callable[[], object]) -> None:
    """Wait for what a skill or the store's proxy sees."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - a thread's, or the proxy's
            await asyncio.sleep(0.005)


def fetched(proxy: FaultProxy) -> set[str]:
    """Return the names of the objects that were asked for."""
    return {request.path.rpartition("/")[2] for request in proxy.requests if request.method == "GET"}


def is_for(name: str, method: str) -> Callable[[Request], bool]:
    return lambda request: request.method == method and request.path.partition("?")[0].endswith(name)


async def submit(orchestrator: EmbeddedOrchestrator, bucket: Bucket, *names: str) -> list[JobRecord]:
    """Submit a task for each object, in this order."""
    uris = [bucket.put(name, name.encode()) for name in names]
    return [orchestrator.submit("compute", {"source": uri}) for uri in uris]


async def submit_behind(
    orchestrator: EmbeddedOrchestrator, bucket: Bucket, device: Device, *names: str
) -> list[JobRecord]:
    """Submit a task for each object, the others once the first computes."""
    jobs = await submit(orchestrator, bucket, names[0])
    await until(lambda: device.names)
    return [*jobs, *await submit(orchestrator, bucket, *names[1:])]


async def finished(jobs: list[JobRecord]) -> None:
    for job in jobs:
        assert (await job.done()).state is JobState.FINISHED, job.describe()


async def test_the_next_inputs_are_fetched_while_the_skill_computes(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, bucket: Bucket, proxy: FaultProxy,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    worker.skill(prefetch=2)(device.compute)
    async with running(worker, orchestrator, **settings):
        jobs = await submit_behind(orchestrator, bucket, device, "a.in", "b.in", "c.in", "d.in")
        await until(lambda: fetched(proxy) >= {"a.in", "b.in", "c.in"})
        assert device.now == 1
        assert jobs[3].state is JobState.QUEUED
        for _ in jobs:
            device.free.release()
        await finished(jobs)
    assert sorted(device.names) == ["a.in", "b.in", "c.in", "d.in"]
    assert device.most == 1


async def test_an_upload_keeps_the_next_task_from_nothing(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, bucket: Bucket, proxy: FaultProxy,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    worker.skill(prefetch=1)(device.compute)
    stall = Stall()
    proxy.some(stall, 100, is_for("a.out", "PUT"))
    jobs = await submit(orchestrator, bucket, "a.in", "b.in", "c.in")
    async with running(worker, orchestrator, **settings):
        for _ in jobs:
            device.free.release()
        await finished(jobs[1:])
        assert proxy.faults == 1
        assert jobs[0].state is JobState.RUNNING
        stall.until.set()
        await finished(jobs)


async def test_without_prefetch_one_task_at_a_time_has_files_moved(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, bucket: Bucket, proxy: FaultProxy,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    worker.skill(max_concurrent=1)(device.compute)
    stall = Stall()
    proxy.some(stall, 100, is_for("a.out", "PUT"))
    jobs = await submit(orchestrator, bucket, "a.in", "b.in")
    async with running(worker, orchestrator, **settings):
        device.free.release()
        device.free.release()
        await until(lambda: proxy.faults)
        assert fetched(proxy) == {"a.in"}
        stall.until.set()
        await finished(jobs)


async def test_the_first_to_come_computes_first_and_nobody_waits_for_its_files(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, bucket: Bucket, proxy: FaultProxy,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    worker.skill(prefetch=3)(device.compute)
    slow = Stall()
    proxy.some(slow, 1, is_for("b.in", "GET"))
    async with running(worker, orchestrator, **settings):
        jobs = await submit_behind(orchestrator, bucket, device, "a.in", "b.in", "c.in", "d.in")
        await until(lambda: fetched(proxy) == {"a.in", "b.in", "c.in", "d.in"})
        device.free.release()
        await until(lambda: len(device.names) == 2)  # the second task has no file yet
        for _ in jobs:
            device.free.release()
        await finished([jobs[0], *jobs[2:]])
        slow.until.set()
        await finished(jobs)
    assert (device.names[0], sorted(device.names[1:3]), device.names[3]) == ("a.in", ["c.in", "d.in"], "b.in")


async def test_a_download_that_fails_makes_room_at_once(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, bucket: Bucket, settings: dict[str, Any]
) -> None:
    worker.skill(prefetch=1)(device.compute)
    (busy,) = await submit(orchestrator, bucket, "a.in")
    async with running(worker, orchestrator, **settings):
        await until(lambda: device.names)
        for _ in range(3):  # the same place, one after another
            missing = await orchestrator.submit("compute", {"source": bucket.uri("none")}).done()
            assert missing.state is JobState.FAILED
        device.free.release()
        await finished([busy])
    assert device.names == ["a.in"]


async def test_a_task_is_cancelled_while_it_waits_and_leaves_nothing(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, bucket: Bucket, proxy: FaultProxy,
    settings: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    worker.skill(prefetch=1)(device.compute)
    async with running(worker, orchestrator, **settings):
        first, second = await submit_behind(orchestrator, bucket, device, "a.in", "b.in")
        await until(lambda: fetched(proxy) == {"a.in", "b.in"})
        orchestrator.cancel(second.job_id)
        await second.done()
        (third,) = await submit(orchestrator, bucket, "c.in")
        await until(lambda: "c.in" in fetched(proxy))  # in the place that is free now
        device.free.release()
        device.free.release()
        await finished([first, third])
    assert device.names == ["a.in", "c.in"]
    assert list((tmp_path / "payloads").glob("*")) == []


async def test_waiting_counts_for_the_deadline(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, bucket: Bucket, settings: dict[str, Any]
) -> None:
    worker.skill(prefetch=1)(device.compute)
    first, second = await submit(orchestrator, bucket, "a.in"), bucket.put("b.in", b"b")
    async with running(worker, orchestrator, **settings):
        await until(lambda: device.names)
        late = orchestrator.submit("compute", {"source": second}, deadline=orchestrator.now() + 0.3)
        await orchestrator.wait_for(lambda: late.results_received)
        assert late.results_received[0].message["error"]["code"] == "TIMEOUT_ERROR"
        device.free.release()
        await finished(first)
    assert device.names == ["a.in"]


async def test_waiting_does_not_count_for_the_timeout_but_transfers_do(
    orchestrator: EmbeddedOrchestrator, worker: Worker, bucket: Bucket, proxy: FaultProxy, settings: dict[str, Any]
) -> None:
    @worker.skill(prefetch=13, timeout=0.6)
    async def compute(source: Path) -> str:
        await asyncio.sleep(0.05)
        return source.name

    names = [f"{letter}.in" for letter in "abcdfghijklmno"]
    jobs = await submit(orchestrator, bucket, *names)
    async with running(worker, orchestrator, **settings, max_concurrent_tasks=14):
        await finished(jobs)  # the last one waits for more than 0.6 s
        proxy.some(Stall(), 1, is_for("e.in", "GET"))
        (stalled,) = await submit(orchestrator, bucket, "e.in")
        await stalled.done()
    assert stalled.results_received[0].message["error"]["code"] == "TIMEOUT_ERROR"
    assert [job.result for job in jobs] == [{"result": name} for name in names]


async def test_a_skill_that_is_given_up_computes_until_it_has_ended(
    orchestrator: EmbeddedOrchestrator, worker: Worker, bucket: Bucket, proxy: FaultProxy, settings: dict[str, Any]
) -> None:
    log: list[str] = []
    go = threading.Event()

    @worker.skill(prefetch=1, cancel_grace=0.05)
    def compute(source: Path) -> None:
        log.append(f"{source.name} begins")
        go.wait(20)
        log.append(f"{source.name} ends")

    (first,) = await submit(orchestrator, bucket, "a.in")
    async with running(worker, orchestrator, **settings):
        await until(lambda: log)
        (second,) = await submit(orchestrator, bucket, "b.in")
        await until(lambda: fetched(proxy) == {"a.in", "b.in"})
        orchestrator.cancel(first.job_id)
        await first.done()
        assert log == ["a.in begins"]
        go.set()
        await finished([second])
    assert log == ["a.in begins", "a.in ends", "b.in begins", "b.in ends"]


async def test_a_shutdown_hands_back_what_waits_and_leaves_nothing(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, bucket: Bucket, proxy: FaultProxy,
    settings: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    worker.skill(prefetch=1)(device.compute)
    async with running(worker, orchestrator, **{**settings, "shutdown_timeout": 0.1}):
        jobs = await submit_behind(orchestrator, bucket, device, "a.in", "b.in")
        await until(lambda: fetched(proxy) == {"a.in", "b.in"})
        await worker.shutdown()
    ends = [job.results_received[0].message["error"]["code"] for job in jobs]
    assert ends == ["TRANSIENT_ERROR", "TRANSIENT_ERROR"]
    assert device.names == ["a.in"]
    assert list((tmp_path / "payloads").glob("*")) == []


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), GeneratorExit(), asyncio.CancelledError()], ids=repr
)
async def test_the_next_task_computes_whatever_a_skill_raises(
    orchestrator: EmbeddedOrchestrator, worker: Worker, bucket: Bucket, settings: dict[str, Any], error: BaseException
) -> None:
    class Raising:
        def __await__(self) -> Iterator[None]:
            yield
            raise error

    @worker.skill(prefetch=1)
    async def compute(source: Path) -> str:
        if source.name == "bad.in":
            await Raising()
        return source.name

    async with running(worker, orchestrator, **settings):
        bad, good = await submit(orchestrator, bucket, "bad.in", "good.in")
        await finished([good])
        await orchestrator.wait_for(lambda: bad.results_received)
    assert bad.results_received[0].message["status"] == "failure"


@pytest.mark.parametrize("skill", ["in_process", "in_thread"])
async def test_every_executor_computes_one_at_a_time(
    orchestrator: EmbeddedOrchestrator, worker: Worker, bucket: Bucket, settings: dict[str, Any], skill: str
) -> None:
    worker.include_blueprint(computing)
    uris = [bucket.put(f"{number}.in", b"x") for number in range(4)]
    async with running(worker, orchestrator, **settings):
        jobs = [orchestrator.submit(skill, {"source": uri}) for uri in uris]
        await finished(jobs)
    spans = sorted((job.result["begin"], job.result["end"]) for job in jobs if job.result)
    assert len(spans) == 4
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


async def test_skills_of_a_type_compute_in_turn(
    orchestrator: EmbeddedOrchestrator, device: Device, bucket: Bucket, proxy: FaultProxy, settings: dict[str, Any]
) -> None:
    worker = Worker(skill_type_limits={"gpu": 1})
    worker.skill("compute", type="gpu", prefetch=1)(device.compute)
    worker.skill("other", type="gpu", prefetch=1, max_concurrent=3)(device.compute)
    uris = [bucket.put(f"{number}.in", b"x") for number in range(4)]
    async with running(worker, orchestrator, **settings):
        jobs = [orchestrator.submit(name, {"source": uri}) for uri in uris for name in ("compute", "other")]
        await until(lambda: device.names and len(fetched(proxy)) >= 2)
        for _ in jobs:
            device.free.release()
        await finished(jobs)
    assert device.most == 1


async def test_a_skill_without_prefetch_has_its_turn_beside_one_of_its_type_with_it(
    orchestrator: EmbeddedOrchestrator, device: Device, bucket: Bucket, settings: dict[str, Any]
) -> None:
    worker = Worker(skill_type_limits={"gpu": 1})
    worker.skill("compute", type="gpu", prefetch=1)(device.compute)
    worker.skill("other", type="gpu")(device.compute)
    async with running(worker, orchestrator, **settings):
        jobs = await submit_behind(orchestrator, bucket, device, "a.in", "b.in", "c.in", "d.in", "e.in")
        other = orchestrator.submit("other", {"source": bucket.put("other.in", b"x")})
        await orchestrator.wait_for(lambda: other.state is JobState.RUNNING)  # it waits here, while others come and go
        for _ in range(6):
            device.free.release()
        await finished([*jobs, other])
    assert device.names.index("other.in") < 4
    assert device.most == 1


async def test_middlewares_do_not_compute(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, bucket: Bucket, settings: dict[str, Any]
) -> None:
    tries: list[str] = []

    async def twice(ctx: TaskContext, call_next: Handler) -> Outcome:
        tries.append(ctx.task_id)
        await call_next(ctx)
        return await call_next(ctx)

    worker.add_middleware(twice)
    worker.skill(prefetch=1)(device.compute)
    jobs = await submit(orchestrator, bucket, "a.in", "b.in")
    async with running(worker, orchestrator, **settings):
        await until(lambda: len(tries) == 2)
        for _ in range(4):
            device.free.release()
        await asyncio.gather(*(job.done() for job in jobs))
    assert device.most == 1


async def test_a_prefetch_beyond_the_slots_is_named(
    orchestrator: EmbeddedOrchestrator, worker: Worker, device: Device, settings: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    worker.skill(prefetch=2)(device.compute)
    async with running(worker, orchestrator, **settings, max_concurrent_tasks=2):
        pass
    (said,) = actions(caplog, "prefetch_unused")
    assert said.endswith("the worker has slots for 2: set MAX_CONCURRENT_TASKS to 3 or more")


computing = SkillBlueprint("computing")


def span_of(source: Path) -> dict[str, float]:
    """Compute for a moment, and return when that was."""
    begin = time.monotonic()
    assert source.read_bytes() == b"x"
    time.sleep(0.03)
    return {"begin": begin, "end": time.monotonic()}


@computing.skill(prefetch=2, executor="process")
def in_process(source: Path) -> dict[str, float]:
    """Compute in a process."""
    return span_of(source)


@computing.skill(prefetch=2)
def in_thread(source: Path) -> dict[str, float]:
    """Compute in a thread."""
    return span_of(source)
