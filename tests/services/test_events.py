"""Events from threads, more of them than go out; events and progress with values that cannot be sent."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from decimal import Decimal
from fractions import Fraction

import pytest

from avtomatika_worker import TaskContext
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault
from services.conftest import actions, in_thread, running

MANY = 1_500
LIMIT = 1_000


@pytest.mark.patient
async def test_a_thread_that_sends_faster_than_events_go_out_waits_and_loses_none(orchestrator, worker):
    sent = []

    @worker.skill
    def flood(ctx: TaskContext):
        for number in range(MANY):
            assert ctx.send_event("tick", {"number": number})
            sent.append(number)

    slow = Fault(call="event", kind="delay", delay=3.0)
    orchestrator.inject(slow)
    async with in_thread(worker, orchestrator, max_event_rate=100_000.0):
        job = orchestrator.submit("flood", {})
        await orchestrator.wait_for(lambda: slow.used)
        async with asyncio.timeout(2.5):
            while len(sent) < LIMIT - 10:  # noqa: ASYNC110 - a thread fills it
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.04)
        assert len(sent) <= LIMIT + 10
        await job.done(timeout=60)
        arrived = [c.json["payload"]["number"] for c in orchestrator.requests if c.call == "event"]
    assert sent == list(range(MANY))
    assert arrived == sent[-len(arrived) :]


@pytest.mark.patient
async def test_it_waits_while_the_main_loop_is_blocked_too(orchestrator, worker):
    sent, during = [], []

    @worker.skill
    def flood(ctx: TaskContext):
        while not ctx.cancelled and len(sent) < 10 * LIMIT:
            ctx.send_event("tick", {})
            sent.append(1)

    @worker.skill
    async def block():
        before = len(sent)
        seen = -1
        while seen < len(sent):  # until the flood has come to a halt
            seen = len(sent)
            time.sleep(0.05)  # noqa: ASYNC251 - what must not be done
        during.append(len(sent) - before)

    async with in_thread(worker, orchestrator, max_event_rate=100_000.0):
        orchestrator.submit("flood", {})
        await orchestrator.wait_for(lambda: sent)
        await orchestrator.submit("block", {}).done()
        sent.extend([1] * 10 * LIMIT)  # ends the flood
    assert during[0] <= LIMIT + 10


# ---------------------------------------------------------------------------------------------- what cannot be sent


def nested(levels):
    return [nested(levels - 1)] if levels else 1


UNSENDABLE = {
    "NaN": (float("nan"), "payload.v[0]: nan does not exist in JSON"),
    "infinity": (float("-inf"), "payload.v[0]: -inf does not exist in JSON"),
    "a huge integer": (2**70, "payload.v[0]: the integer 1180591620717411303424 does not fit in 64 bits"),
    "a huge float": (1e20, "payload.v[0]: the number 1e+20 has no fraction"),
    "a lone surrogate": ("caf\udce9", "payload.v[0]: the text is not valid Unicode"),
    "one in a key": ({"caf\udce9": 1}, "payload.v[0]: the key 'caf\\udce9' is not valid Unicode"),
    "an object": (object(), "payload.v[0]: object is not JSON-able"),
    "an odd key": ({object(): 1}, "payload.v[0]: the key <object object at"),
    "a coroutine function": (asyncio.sleep, "payload.v[0]: function is not JSON-able"),
    "nesting": (nested(40), "nested too deeply: orchestrators of version 1.0b17 accept 30 levels"),
    "nesting without end": (nested(900), "nested too deep"),
    "size": ("x" * 1_100_000, "its payload is 1100010 bytes long, but at most 983040 (MAX_RESULT_BYTES) can be sent"),
}


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_an_event_that_cannot_be_sent_returns_false_and_is_logged_once(orchestrator, worker, caplog, kind):
    @worker.skill(name="async")
    async def awaits(ctx: TaskContext):
        return {name: await ctx.send_event("e", {"v": [value]}) for name, (value, _) in UNSENDABLE.items()}

    @worker.skill(name="thread")
    def calls(ctx: TaskContext):
        return {name: bool(ctx.send_event("e", {"v": [value]})) for name, (value, _) in UNSENDABLE.items()}

    async with running(worker, orchestrator):
        job = orchestrator.submit(kind, {})
        await job.done(timeout=20)
    assert job.result == dict.fromkeys(UNSENDABLE, False)
    assert job.events == []
    problems = actions(caplog, "event_blocked")
    assert len(problems) == len(UNSENDABLE)
    for text, (_, problem) in zip(problems, UNSENDABLE.values(), strict=True):
        assert text.startswith(f"event 'e' of skill {kind} not sent: ")
        assert problem in text


async def test_an_event_is_checked_against_the_dialect_of_its_own_orchestrator(worker):
    @worker.skill
    async def deep(ctx: TaskContext):
        return {"sent": await ctx.send_event("e", {"v": nested(40)})}

    async with EmbeddedOrchestrator(version="1.0b7") as orchestrator, running(worker, orchestrator):
        job = orchestrator.submit("deep", {})
        await job.done(timeout=20)
    assert (job.result, len(job.events)) == ({"sent": True}, 1)


ODD_TYPES = {"none": None, "number": 3, "empty": "", "bytes": b"e", "surrogate": "caf\udce9", "object": object()}


@pytest.mark.parametrize("event_type", ODD_TYPES.values(), ids=ODD_TYPES)
async def test_the_type_of_an_event_is_checked_too(orchestrator, worker, caplog, event_type):
    @worker.skill
    async def send(ctx: TaskContext):
        return {"sent": await ctx.send_event(event_type, {})}

    async with running(worker, orchestrator):
        job = orchestrator.submit("send", {})
        await job.done(timeout=20)
    assert (job.result, job.events) == ({"sent": False}, [])
    assert len(actions(caplog, "event_blocked")) == 1


NO_FRACTIONS = [None, "0.5", True, float("nan"), float("inf"), -0.1, 1.01, 2**70, 10**5000, Decimal("0.5"), object()]


@pytest.mark.parametrize("fraction", NO_FRACTIONS, ids=range(len(NO_FRACTIONS)))
async def test_progress_that_is_not_a_fraction_returns_false_and_is_logged_once(orchestrator, worker, caplog, fraction):
    @worker.skill
    async def send(ctx: TaskContext):
        return {
            "sent": [await ctx.send_progress(fraction, "a text"), bool(ctx.send_event("progress", {"progress": 2}))]
        }

    async with running(worker, orchestrator):
        job = orchestrator.submit("send", {})
        await job.done(timeout=20)
    assert (job.result, job.events) == ({"sent": [False, False]}, [])
    first, second = actions(caplog, "event_blocked")
    assert "progress must be a number from 0 to 1, not " in first
    assert second.endswith("not 2")


@pytest.mark.parametrize(
    ("text", "arrives"),
    [("caf\udce9", "caf?"), ("x" * 5_000, "x" * 2_000), (7, "7")],
    ids=["surrogate", "long", "number"],
)
@pytest.mark.parametrize("fraction", [1, Fraction(1, 2)])
async def test_the_text_of_progress_is_repaired(orchestrator, worker, text, arrives, fraction):
    @worker.skill
    async def send(ctx: TaskContext):
        return {"sent": await ctx.send_progress(fraction, text)}

    async with running(worker, orchestrator):
        job = orchestrator.submit("send", {})
        await job.done(timeout=20)
    assert job.result == {"sent": True}
    assert [each["payload"] for each in job.events] == [{"progress": float(fraction), "message": arrives}]


async def test_a_name_that_cannot_be_announced_as_hot_is_logged_and_the_worker_stays_registered(worker, caplog):
    @worker.skill
    async def load(ctx: TaskContext):
        for name in ("caf\udce9", 5, None, "good"):
            ctx.add_to_hot_cache(name)

    # 1.0b7 is sent the names of the hot cache
    async with EmbeddedOrchestrator(version="1.0b7") as orchestrator, running(worker, orchestrator):
        await orchestrator.submit("load", {}).done(timeout=20)
        await orchestrator.wait_for(
            lambda: any(c.call == "heartbeat" and c.json["hot_cache"] == ["good"] for c in orchestrator.requests), 10
        )
    assert len(actions(caplog, "hot_name_refused")) == 3


async def test_with_always_no_event_from_a_thread_is_left_on_disk_once_it_is_delivered(worker, tmp_path):
    orchestrator = EmbeddedOrchestrator()

    def arrived():
        return sum(call.call == "event" for call in orchestrator.requests)

    @worker.skill
    async def steady(ctx: TaskContext):
        for number in range(60):
            async with asyncio.timeout(5):
                while arrived() < number:  # noqa: ASYNC110 - the very moment counts
                    await asyncio.sleep(0)
            for _ in range(number % 30):  # some come in the very moment in which the one before is answered
                await asyncio.sleep(0)
            thread = threading.Thread(target=ctx.send_event, args=("tick", {"number": number}))
            thread.start()
            thread.join()

    settings = {"result_durability": "always", "state_dir": str(tmp_path), "max_event_rate": 100_000.0}
    async with orchestrator, running(worker, orchestrator, **settings):
        await orchestrator.submit("steady", {}).done(timeout=30)
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox-w1.sqlite3")) as connection:
        left = connection.execute("SELECT count(*) FROM waiting").fetchone()[0]
    assert left == 0
