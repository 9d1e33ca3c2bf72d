"""Events from threads, more of them than go out."""

import asyncio
import time

from avtomatika_worker import TaskContext
from avtomatika_worker.devserver import Fault
from services.conftest import in_thread

MANY = 2_500
LIMIT = 1_000


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
        time.sleep(0.5)  # noqa: ASYNC251 - what must not be done
        during.append(len(sent) - before)

    async with in_thread(worker, orchestrator, max_event_rate=100_000.0):
        orchestrator.submit("flood", {})
        await orchestrator.wait_for(lambda: sent)
        await orchestrator.submit("block", {}).done()
        sent.extend([1] * 10 * LIMIT)  # ends the flood
    assert during[0] <= LIMIT + 10
