"""Generators as skills: chunks go out in order before the result, whatever runs the generator and whatever ends it."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass

import pytest

from avtomatika_worker import ContractViolationError, Final, Succeeded, TaskContext
from avtomatika_worker.config import ResultDurability
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from services.conftest import actions, running

UNLIMITED = {"orchestrator_rate_limit": "off", "max_event_rate": 100_000.0, "heartbeat_interval": 0.2}


def chunks(job):
    return [event["payload"] for event in job.events if event["event_type"] == "chunk"]


def text(job):
    return "".join(chunk["data"] for chunk in chunks(job))


async def done(orchestrator, skill, params=None, **job):
    job = orchestrator.submit(skill, params or {}, **job)
    await job.done(timeout=20)
    await orchestrator.wait_for(lambda: job.results_received)
    return job


def before_result(orchestrator, job):
    """The calls for events and the result in the order in which they came."""
    calls = [c.call for c in orchestrator.requests if c.call in {"event", "result"}]
    return calls == ["event"] * (len(calls) - 1) + ["result"]


@dataclass
class Point:
    x: int


@pytest.fixture
async def orchestrator():
    """One without limits: those of releases are in tests of their own."""
    async with EmbeddedOrchestrator(poll_time=1.0, rate_limits=None) as started:
        yield started


@pytest.fixture
def generators(worker):
    @worker.skill
    async def loop(count: int) -> AsyncIterator[str]:
        for number in range(count):
            await asyncio.sleep(0)
            yield f"{number} "

    @worker.skill
    def thread(count: int) -> Iterator[str]:
        for number in range(count):
            yield f"{number} "

    @worker.skill
    async def untyped(count: int):
        for number in range(count):
            yield f"{number} "

    @worker.skill
    def wrapped(count: int) -> Iterator[str]:  # no generator itself
        return (f"{number} " for number in range(count))

    return worker


@pytest.mark.parametrize("skill", ["loop", "thread", "untyped", "wrapped"])
@pytest.mark.parametrize("count", [0, 1, 500])
async def test_the_chunks_are_the_result(orchestrator, generators, skill, count):
    async with running(generators, orchestrator, **UNLIMITED):
        job = await done(orchestrator, skill, {"count": count})
    expected = "".join(f"{number} " for number in range(count))
    assert text(job) == expected
    assert job.result == ({} if skill == "untyped" and not count else {"result": expected})
    assert [chunk["index"] for chunk in chunks(job)] == list(range(len(chunks(job))))
    assert len({chunk["attempt"] for chunk in chunks(job)}) <= 1
    assert before_result(orchestrator, job)


async def test_items_are_lists_by_their_type_and_models_as_their_fields(orchestrator, worker):
    @worker.skill
    async def points(count: int) -> AsyncIterator[Point]:
        for x in range(count):
            yield Point(x)

    async with running(worker, orchestrator, **UNLIMITED):
        job = await done(orchestrator, "points", {"count": 20})
    expected = [{"x": x} for x in range(20)]
    assert [item for chunk in chunks(job) for item in chunk["data"]] == expected
    assert job.result == {"result": expected}
    announced = orchestrator.workers["w1"].skills["points"]["events_schema"]["chunk"]
    assert announced["properties"]["data"]["type"] == "array"


async def test_the_last_value_of_a_generator_may_be_the_result(orchestrator, worker):
    seen = []

    async def look(ctx, call_next):
        outcome = await call_next(ctx)
        seen.append(outcome.data)
        return outcome

    worker.add_middleware(look)

    @worker.skill
    async def final(n: int) -> AsyncIterator[str | Final[dict[str, int]]]:
        try:
            yield "a"
            yield Final({"n": n})
            raise AssertionError("it is closed here")
        finally:
            seen.append("closed")

    @worker.skill
    def returned(n: int) -> Generator[str, None, dict[str, int]]:
        yield "a"
        return {"n": n}

    @worker.skill
    def outcome(n: int):
        yield "a"
        return Succeeded({"n": n})

    async with running(worker, orchestrator, **UNLIMITED):
        for skill in ("final", "returned", "outcome"):
            job = await done(orchestrator, skill, {"n": 3})
            assert (job.result, text(job)) == ({"n": 3}, "a"), skill
    assert seen == ["closed", {"n": 3}, {"n": 3}, {"n": 3}]


WRONG = {
    "a surrogate": ("caf\udce9", "chunk 1 cannot be sent: data: the text is not valid Unicode"),
    "another type": (5, "chunk 1 is of type int, but the skill yields text"),
    "bytes": (b"x", "chunk 1 is of type bytes, but the skill yields text"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_a_wrong_chunk_ends_the_skill_and_is_named(orchestrator, worker, wrong, kind):
    value, problem = WRONG[wrong]
    closed = []

    @worker.skill
    async def loop():
        try:
            yield "a"
            yield value
        finally:
            closed.append(1)

    @worker.skill
    def thread():
        try:
            yield "a"
            yield value
        finally:
            closed.append(1)

    async with running(worker, orchestrator, **UNLIMITED):
        job = orchestrator.submit(kind, {})
        await orchestrator.wait_for(lambda: job.results_received)
    error = job.results_received[0].message["error"]
    assert (error["code"], error["message"]) == (ContractViolationError.code, problem)
    assert closed == [1]
    assert text(job) == "a"


async def test_long_texts_are_cut_to_what_an_event_may_hold_and_items_too_long_are_refused(orchestrator, worker):
    long = "\x01\u20ac" * 400_000

    @worker.skill
    def texts() -> Iterator[str]:
        yield long

    @worker.skill
    def items() -> Iterator[list[str]]:
        yield ["x" * 1_000_000]

    async with running(worker, orchestrator, max_result_bytes=None, **UNLIMITED):
        job = orchestrator.submit("texts", {})
        await orchestrator.wait_for(lambda: text(job) == long, timeout=20)
        sizes = [len(call.body) for call in orchestrator.requests if call.call == "event"]
        assert max(sizes) < 300_000
        refused = orchestrator.submit("items", {})
        await orchestrator.wait_for(lambda: refused.results_received)
    message = refused.results_received[0].message["error"]["message"]
    assert message.startswith("chunk 0 cannot be sent: it is 1000")
    assert message.endswith("but at most 983040 can be sent")


async def test_an_item_is_checked_against_its_type(orchestrator, worker):
    @worker.skill
    async def points() -> AsyncIterator[Point]:
        yield Point("far")  # type: ignore[arg-type]

    async with running(worker, orchestrator, **UNLIMITED):
        job = orchestrator.submit("points", {})
        await orchestrator.wait_for(lambda: job.results_received)
    assert "the chunk violates its schema: data.x" in job.results_received[0].message["error"]["message"]


@pytest.mark.parametrize("kind", ["loop", "busy", "stubborn", "thread"])
@pytest.mark.parametrize("by", ["cancellation", "deadline"])
async def test_the_end_of_a_task_reaches_its_generator(orchestrator, worker, kind, by):
    closed = threading.Event()

    @worker.skill
    async def loop() -> AsyncIterator[str]:
        try:
            for number in itertools.count():
                yield f"{number} "
                await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0)
            closed.set()

    @worker.skill
    async def busy() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    @worker.skill
    async def stubborn() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                try:  # noqa: SIM105
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass
        finally:
            closed.set()

    @worker.skill
    def thread() -> Iterator[str]:
        try:
            while True:
                yield "x"
                time.sleep(0.001)
        finally:
            closed.set()

    async with running(worker, orchestrator, **UNLIMITED):
        soon = orchestrator.now() + 0.5 if by == "deadline" else None
        job = orchestrator.submit(kind, {}, deadline=soon)
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING and chunks(job))
        if by == "cancellation":
            orchestrator.cancel(job.job_id)
        await orchestrator.wait_for(lambda: job.results_received, timeout=10)
    assert closed.is_set()
    message = job.results_received[0].message
    assert (message["status"], (message.get("error") or {}).get("code")) == (
        ("cancelled", None) if by == "cancellation" else ("failure", "TIMEOUT_ERROR")
    )


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_a_generator_that_is_too_fast_waits_for_the_orchestrator(orchestrator, worker, kind):
    yielded, block = [], "x" * 100_000

    @worker.skill
    async def loop() -> AsyncIterator[str]:
        for _ in range(40):
            yielded.append(1)
            yield block

    @worker.skill
    def thread() -> Iterator[str]:
        for _ in range(40):
            yielded.append(1)
            yield block

    before = []  # how much was yielded before the first event came, and the second, which waits for the first's answer
    slow = Fault("event", "delay", delay=0.3, times=2, when=lambda _: before.append(len(yielded)) is None)
    orchestrator.inject(slow)
    async with running(worker, orchestrator, max_result_bytes=None, **UNLIMITED):
        job = orchestrator.submit(kind, {})
        await orchestrator.wait_for(lambda: len(before) == 2)
        assert before[1] < 20  # it could have yielded all in far less time
        await job.done(timeout=20)
    assert text(job) == block * 40


async def test_events_and_chunks_stay_in_the_order_of_the_skill(orchestrator, worker):
    @worker.skill(events={"mark": {"type": "object"}})
    def marked(ctx: TaskContext) -> Iterator[str]:
        for number in range(50):
            yield f"{number} "
            if number % 10 == 9:
                ctx.send_event("mark", {"after": number})

    async with running(worker, orchestrator, **UNLIMITED):
        job = await done(orchestrator, "marked")
    heard = ""
    for event in job.events:
        if event["event_type"] == "mark":
            assert heard.endswith(f"{event['payload']['after']} ")
        else:
            heard += event["payload"]["data"]
    assert heard == "".join(f"{number} " for number in range(50))


async def test_a_skill_that_yields_may_send_events_of_any_name_but_its_own(orchestrator, worker, caplog):
    @worker.skill
    async def free(ctx: TaskContext) -> AsyncIterator[str]:
        await ctx.send_event("anything", {"n": 1})
        await ctx.send_event("chunk", {"n": 1})
        yield "a"

    async with running(worker, orchestrator, **UNLIMITED):
        job = await done(orchestrator, "free")
    assert [event["event_type"] for event in job.events] == ["anything", "chunk"]
    assert actions(caplog, "event_blocked") == [
        "event 'chunk' of skill free not sent: a generator sends its chunks by yielding them"
    ]


# ------------------------------------------------------------------------------------------------ limits


async def test_streams_stay_within_the_limits_that_orchestrators_have(worker):
    """The limits of releases, with a shorter silence: at full speed, 60 tokens would be 60 events."""

    @worker.skill
    async def tokens(count: int) -> AsyncIterator[str]:
        for number in range(count):
            yield f"{number} "
            await asyncio.sleep(0.01)

    async with EmbeddedOrchestrator(rate_limits={"event": 40}, rate_period=5.0) as orchestrator:
        limits = {"orchestrator_rate_limit": "40/5"}
        async with running(worker, orchestrator, rate_limit_wait=6.0, **limits):
            jobs = [orchestrator.submit("tokens", {"count": 60}) for _ in range(3)]
            for job in jobs:
                await job.done(timeout=20)
    for job in jobs:
        assert text(job) == job.result["result"] == "".join(f"{number} " for number in range(60))
        assert len(chunks(job)) > 2
    assert [c.status for c in orchestrator.requests if c.status == 429] == []


async def test_an_event_s_429_never_holds_a_result_back_and_its_chunks_follow_in_order(worker, tmp_path):
    """They wait on disk, as events do: here until the next run, which is refused nothing."""

    @worker.skill
    async def tokens() -> AsyncIterator[str]:
        for each in "abcdef":
            yield each
            await asyncio.sleep(0.02)

    settings = {"state_dir": tmp_path, "shutdown_timeout": 0.2, "result_durability": ResultDurability.ALWAYS}
    async with EmbeddedOrchestrator() as orchestrator:
        orchestrator.inject(Fault(call="event", kind="status", status=429, times=None))
        async with running(worker, orchestrator, rate_limit_wait=60.0, **settings):
            began = time.monotonic()
            job = await done(orchestrator, "tokens")
            assert time.monotonic() - began < 4.0
            worker.request_shutdown()
            worker.request_shutdown()  # in haste: the events would be tried for seconds
        assert (job.result, chunks(job)) == ({"result": "abcdef"}, [])
        orchestrator.clear_faults()
        async with running(worker, orchestrator, **settings):
            await orchestrator.wait_for(lambda: text(job) == "abcdef", timeout=10)
    assert [chunk["index"] for chunk in chunks(job)] == list(range(len(chunks(job))))


async def test_a_second_attempt_has_a_higher_number(orchestrator, worker):
    tries = []

    @worker.skill
    async def tokens() -> AsyncIterator[str]:
        tries.append(1)
        yield "a"
        if len(tries) == 1:
            raise ValueError("not yet")
        yield "b"

    async with running(worker, orchestrator, **UNLIMITED):
        job = await done(orchestrator, "tokens")
    first, *second = chunks(job)
    assert (first["index"], second[0]["index"]) == (0, 0)
    assert all(chunk["attempt"] > first["attempt"] for chunk in second)
    assert "".join(chunk["data"] for chunk in second) == "ab"
