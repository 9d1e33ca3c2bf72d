"""A skill that blocks the main loop costs no heartbeat, is named in the log, and shows in ``/live``."""

import asyncio
import itertools
import threading
import time

import aiohttp
import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator, JobState
from avtomatika_worker.monitoring.watchdog import STALLED_AFTER, Pulse, Watchdog
from services.conftest import actions, beats, in_thread, listening


def gaps(orchestrator):
    times = [call.time for call in orchestrator.requests if call.call == "heartbeat"]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


async def test_a_blocked_loop_costs_no_heartbeat_and_the_log_says_who_blocks_it_and_where(worker, caplog):
    @worker.skill
    async def blocker(seconds: float):
        time.sleep(seconds)  # noqa: ASYNC251 - the mistake this is about
        return {"slept": seconds}

    async with EmbeddedOrchestrator() as orchestrator, in_thread(worker, orchestrator, heartbeat_interval=0.5):
        job = await orchestrator.submit("blocker", {"seconds": 8.0}).done(timeout=40)
        assert (job.state, job.result) == (JobState.FINISHED, {"slept": 8.0})
        during = gaps(orchestrator)[1:]
        print(f"longest gap between heartbeats: {max(during):.2f} s")
        assert max(during) < 4.0  # the interval is 0.5 s, the loop was blocked for 8 s
        assert len(during) >= 8
        await beats(orchestrator, 4)  # two looks of the watchdog's, at least
        assert actions(caplog, "loop_unblocked")
    (text,) = actions(caplog, "loop_blocked")
    assert "skill blocker" in text
    assert "time.sleep(seconds)" in text


async def test_liveness_fails_with_the_reason_while_the_loop_is_blocked_too_long(worker, unused_tcp_port):
    go_on = threading.Event()

    @worker.skill
    async def blocker():
        go_on.wait(30)  # the mistake this is about

    url = f"http://127.0.0.1:{unused_tcp_port}"
    settings = {"port": unused_tcp_port, "health_host": "127.0.0.1", "loop_blocked_limit": 1.0}
    async with EmbeddedOrchestrator() as orchestrator, aiohttp.ClientSession() as client:

        async def ask(path):
            async with client.get(url + path) as reply:
                return reply.status, await reply.json()

        async with in_thread(worker, orchestrator, health_check=True, **settings):
            await listening(unused_tcp_port)
            assert (await ask("/live"))[0] == 200
            job = orchestrator.submit("blocker", {})
            while (await ask("/live"))[0] == 200:  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.05)
            status, body = await ask("/live")
            assert status == 503
            assert "blocked" in body["reason"]
            assert "skill blocker" in body["reason"]
            status, body = await ask("/health")
            assert (status, body["live"]) == (200, False)
            assert (await ask("/ready"))[0] == 200
            go_on.set()
            await job.done()
            assert (await ask("/live"))[0] == 200


async def test_an_outage_of_the_orchestrator_fails_readiness_but_never_liveness(worker, unused_tcp_port):
    url = f"http://127.0.0.1:{unused_tcp_port}"
    settings = {"port": unused_tcp_port, "health_host": "127.0.0.1", "heartbeat_interval": 0.1}
    async with (
        EmbeddedOrchestrator() as orchestrator,
        aiohttp.ClientSession() as client,
        in_thread(worker, orchestrator, health_check=True, **settings),
    ):
        await listening(unused_tcp_port)

        async def status(path):
            async with client.get(url + path) as reply:
                return reply.status

        async def ready_says(wanted):
            async with asyncio.timeout(10):
                while await status("/ready") != wanted:  # noqa: ASYNC110 - another thread
                    await asyncio.sleep(0.02)

        await ready_says(200)
        await orchestrator.stop()
        await ready_says(503)
        assert await status("/live") == 200
        await orchestrator.start()


class StillPulse(Pulse):
    """A main loop that is never blocked."""

    @property
    def silence(self):
        return 0.0


@pytest.mark.parametrize("due", [True, False])
async def test_a_poller_that_has_stopped_is_noticed(due, caplog):
    clock = {"now": 100.0}
    watchdog = Watchdog(StillPulse(), lambda: due, list, blocked_limit=60, clock=lambda: clock["now"])
    for _ in range(5):
        watchdog.look()
        assert watchdog.problem() is None
        clock["now"] += STALLED_AFTER / 6
    clock["now"] += STALLED_AFTER
    watchdog.look()
    assert (watchdog.problem() is not None) is due
    assert bool(actions(caplog, "poller_stalled")) is due


async def test_the_poller_is_asked_in_its_own_thread_and_its_answer_is_read_in_the_other(caplog):
    """The waiting polls change on the main loop thousands of times a second: no other thread may iterate over them."""
    asked = []

    def poll_is_due():
        asked.append(threading.get_ident())
        return True

    pulse = Pulse(poll_is_due)
    clock = {"now": 100.0}
    watchdog = Watchdog(pulse, pulse.poll_is_due, list, blocked_limit=60, clock=lambda: clock["now"])
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(pulse.run())
        while not asked:  # noqa: ASYNC110 - the first beat
            await asyncio.sleep(0)
        await asyncio.to_thread(watchdog.look)
        clock["now"] += 2 * STALLED_AFTER
        await asyncio.to_thread(watchdog.look)
        beating.cancel()
    assert actions(caplog, "poller_stalled")
    assert set(asked) == {threading.get_ident()}
