"""Contact that breaks and comes back, orchestrators that fall silent, and clocks that jump."""

import asyncio
import contextlib
import shutil
import sqlite3
import threading
import time

import msgspec
import pytest

from avtomatika_worker import TaskContext
from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.outbox import BACKLOG_BYTES, BACKLOG_LIMIT, Outbox
from avtomatika_worker.delivery.sqlite_store import Kind, Message, SqliteStore
from avtomatika_worker.delivery.store import Store
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from avtomatika_worker.link.clock import Clock
from avtomatika_worker.link.doubt import PAUSE, Doubt
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.link.silence import SILENT_AFTER, Silence
from avtomatika_worker.protocol.messages import TaskResult
from avtomatika_worker.transport.http import HttpTransport
from services.conftest import actions, in_thread, running
from services.scripted import NEVER, RESET, Answer, Scripted
from services.test_orchestrators import at

LONG_DELAYS = {"result_retry_initial_delay": 600.0, "result_retry_max_delay": 600.0}
"""With these, a poll that waits for a back-off comes too late for any test."""


class TasksAtOnce:
    """How many tasks of the skill ``note`` run at once, at ``most``."""

    def __init__(self, worker):
        self.most = 0
        running_now = 0

        @worker.skill
        async def note():
            nonlocal running_now
            running_now += 1
            self.most = max(self.most, running_now)
            await asyncio.sleep(0.05)
            running_now -= 1
            return {}


@pytest.fixture
def tasks_at_once(worker):
    return TasksAtOnce(worker)


# ------------------------------------------------------------------------------------------------ breaks


async def test_after_a_break_the_first_poll_goes_out_with_the_registration_however_many_polls_failed(worker):
    @worker.skill
    async def note():
        return {}

    async with Scripted() as server, running(worker, server, max_concurrent_tasks=10, **LONG_DELAYS):
        for rounds in range(1, 4):
            await server.hand_out(*({"task_id": f"t{rounds}-{n}", "type": "note"} for n in range(60)))
            await server.until(lambda: len(server.results()) == 60 * rounds)  # noqa: B023
            await server.until(lambda: server.polls_held > 1)
            registrations, polls = len(server.calls["register"]), len(server.calls["poll"])
            await server.stop()
            await server.start()
            await server.until(lambda: len(server.calls["register"]) > registrations)  # noqa: B023
            await server.until(lambda: len(server.calls["poll"]) > polls)  # noqa: B023
            again = server.calls["register"][registrations].at
            assert next(call.at for call in server.calls["poll"][polls:]) - again < 1.0


async def test_a_registration_that_no_poll_follows_up_is_not_repeated_in_a_hurry(worker):
    """Polls that always fail break contact each time; registrations that follow at once become rarer and rarer."""

    @worker.skill
    async def note():
        return {}

    def script(call):
        return Answer(503) if call.kind == "poll" else None

    settings = {"registration_retry_initial_delay": 0.02, "registration_retry_max_delay": 60.0, **LONG_DELAYS}
    async with Scripted(script) as server, running(worker, server, enable_websockets=False, **settings):
        await server.until(lambda: len(server.calls["register"]) >= 10, timeout=60)
        came = [call.at for call in server.calls["register"]]
    assert came[9] - came[0] > 0.5  # with delays below 0.02 s; these are random below 0.02, 0.04, … 5.12 s


async def test_an_unanswered_poll_is_kept_open_and_holds_nothing_back_after_a_break(worker, tasks_at_once):
    held = asyncio.Event()

    def script(call):
        if call.kind == "poll" and not held.is_set():
            held.set()
            return NEVER
        if call.kind == "heartbeat" and call.number == 2:
            return RESET
        return None

    async with Scripted(script) as server, running(worker, server, max_concurrent_tasks=1, heartbeat_interval=0.2):
        await server.until(lambda: len(server.calls["register"]) >= 2)
        tasks = [{"task_id": f"t{n}", "type": "note"} for n in range(5)]
        await server.hand_out(*tasks)  # the only slot was that of the poll which is never answered
        await server.until(lambda: len(server.results()) == 5)
    assert tasks_at_once.most == 1


async def test_what_a_poll_from_before_a_break_brings_is_run_and_no_slot_is_used_twice(worker, tasks_at_once):
    async with (
        EmbeddedOrchestrator(poll_time=20.0) as orchestrator,
        running(worker, orchestrator, max_concurrent_tasks=1, heartbeat_interval=0.2, enable_websockets=False),
    ):
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].polls == 1)
        orchestrator.inject(Fault(call="heartbeat", kind="reset"))
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].polls == 2)  # the former one waits, too
        jobs = [orchestrator.submit("note", {}) for _ in range(4)]
        for job in jobs:
            assert (await job.done()).state is JobState.FINISHED
        assert {job.attempts for job in jobs} == {1}
    assert tasks_at_once.most == 1


async def test_a_poll_that_waits_longer_than_orchestrators_hold_them_does_not_keep_the_next_back(worker):
    @worker.skill
    async def note():
        return {}

    def script(call):
        return NEVER if call.kind == "poll" and call.number == 1 else None

    async with (
        Scripted(script) as server,
        running(worker, server, max_concurrent_tasks=1, task_poll_timeout=0.1, enable_websockets=False),
    ):
        await server.hand_out({"task_id": "t", "type": "note"})
        await server.until(server.results, timeout=20)
        assert len(server.calls["register"]) == 1  # nothing had broken


# ------------------------------------------------------------------------------------------------ silence


async def test_results_that_one_does_not_answer_hold_no_slot_of_another(worker):
    @worker.skill
    async def note():
        return {}

    async with EmbeddedOrchestrator(poll_time=1.0) as mute, EmbeddedOrchestrator(poll_time=1.0) as well:
        mute.inject(Fault(call="result", kind="delay", delay=60.0, times=None))
        async with at(worker, [mute, well], "WATERFALL", max_concurrent_tasks=2, shutdown_timeout=0.1):
            stuck = [mute.submit("note", {}) for _ in range(8)]
            await mute.wait_for(lambda: all(job.state is JobState.RUNNING for job in stuck))  # two slots, eight tasks
            jobs = [well.submit("note", {}) for _ in range(8)]
            for job in jobs:
                assert (await job.done(timeout=15)).state is JobState.FINISHED  # an answer is waited for for 30 s
            worker.request_shutdown()
            worker.request_shutdown()


async def test_in_failover_one_that_is_silent_is_out_of_reach(worker):
    @worker.skill
    async def note():
        return {}

    async with (
        EmbeddedOrchestrator(poll_time=1.0) as first,
        EmbeddedOrchestrator(poll_time=1.0) as second,
        at(worker, [first, second], "FAILOVER", shutdown_timeout=0.1, heartbeat_interval=15.0),
    ):
        assert (await first.submit("note", {}).done()).state is JobState.FINISHED
        first.inject(Fault(call="any", kind="delay", delay=60.0, times=None))
        job = second.submit("note", {})
        assert (await job.done(timeout=12)).state is JobState.FINISHED  # a heartbeat takes 15 s, and fails after 30
        worker.request_shutdown()
        worker.request_shutdown()


async def test_an_orchestrator_that_restarted_while_no_poll_waited_is_registered_at_again(worker, orchestrator):
    """Its answers to heartbeats do not say that it has lost the worker. That it closed their connection does."""
    release = asyncio.Event()

    @worker.skill
    async def holds():
        await release.wait()
        return {}

    settings = {"enable_websockets": False, "max_concurrent_tasks": 1, "heartbeat_interval": 1.0}
    async with running(worker, orchestrator, **settings):
        job = orchestrator.submit("holds", {})
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        heartbeats = [call for call in orchestrator.requests if call.call == "heartbeat"]
        await orchestrator.wait_for(
            lambda: sum(call.call == "heartbeat" for call in orchestrator.requests) > len(heartbeats) + 1
        )
        await orchestrator.stop()  # it is back long before the next heartbeat
        orchestrator.forget_workers()
        await orchestrator.start()
        await orchestrator.wait_for_worker("w1")
        release.set()


async def test_one_that_closes_idle_connections_quickly_is_registered_at_once_more_and_not_each_time(worker):
    @worker.skill
    async def note():
        return {}

    async with Scripted() as server:
        server.keep_alive = 0.03
        async with running(worker, server, enable_websockets=False, heartbeat_interval=0.1):
            await server.until(lambda: len(server.calls["heartbeat"]) > 12)
            assert len(server.calls["register"]) == 2


def test_doubt_is_raised_by_a_close_at_another_time_than_the_last_and_once_a_lease():
    now = 0.0
    doubt = Doubt(lambda: now)
    assert not doubt.calls_for_registration
    doubt.dropped(5.0)
    assert doubt.calls_for_registration
    doubt.registering()
    assert not doubt.calls_for_registration

    for rested in (5.1, 4.9, 5.0):  # a keep-alive time
        now += PAUSE
        doubt.dropped(rested)
        assert not doubt.calls_for_registration

    doubt.dropped(1.0)
    assert doubt.calls_for_registration
    doubt.registering()
    doubt.dropped(3.0)
    assert not doubt.calls_for_registration  # so soon
    doubt.dropped(3.0)
    now += PAUSE
    assert doubt.calls_for_registration  # and yet not forgotten


def test_a_registration_for_another_reason_ends_a_doubt_and_defers_no_later_one():
    now = 0.0
    doubt = Doubt(lambda: now)
    doubt.registering()
    doubt.dropped(2.0)
    assert doubt.calls_for_registration


def test_silence_is_the_lack_of_any_answer_while_a_call_is_open():
    now = 0.0
    silence = Silence(lambda: now)
    now = 100.0
    assert not silence.lasts  # nobody asked
    question = silence.began()
    assert not silence.lasts  # an answer takes a moment
    now += 1.0
    assert silence.lasts
    silence.answered()
    assert not silence.lasts
    now += SILENT_AFTER
    assert silence.lasts
    silence.ended(question)
    assert not silence.lasts


# ------------------------------------------------------------------------------------------------ an outage's limit


def a_link():
    return Link(LinkSettings("http://127.0.0.1:1", "token"), "w1", HttpTransport("http://127.0.0.1:1", user_agent="t"))


def a_result(number, **data):
    return TaskResult(
        job_id="j", task_id=f"t{number}", worker_id="w1", origin_worker_id="w1", status="success", data=data
    )


def test_what_waits_is_limited_by_number_and_by_bytes():
    link, other = a_link(), a_link()
    outbox = Outbox(Store(None), max_age=60)
    for number in range(BACKLOG_LIMIT):
        assert not outbox.is_full(link)
        outbox.take_over(link, a_result(number))
    assert outbox.is_full(link)
    text = "x" * (BACKLOG_BYTES // 8)
    for number in range(8):
        assert not outbox.is_full(other)
        outbox.take_over(other, a_result(number, text=text))
    assert outbox.is_full(other)


# ------------------------------------------------------------------------------------------------ clocks


class Clocks:
    """A machine's clocks, and a server's that is right."""

    def __init__(self):
        self.passed = 1000.0
        self.jump = 0.0

    def wall(self):
        return 1_800_000_000.0 + self.passed + self.jump

    def steady(self):
        return self.passed

    def server(self):
        return 1_800_000_000.0 + self.passed

    def date(self):
        return float(int(self.server()))


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def clock(clocks):
    return Clock("http://x", wall=clocks.wall, steady=clocks.steady)


@pytest.mark.parametrize("jump", [-90_000.0, -65.0, 65.0, 90_000.0])
def test_a_clock_that_is_set_while_the_worker_runs_changes_no_timestamp(clocks, clock, jump):
    clock.learn(clocks.date(), clocks.steady())
    clocks.jump = jump
    clocks.passed += 0.3
    assert abs(clock.now() - clocks.server()) < 2
    clock.learn(clocks.date(), clocks.steady())
    assert abs(clock.now() - clocks.server()) < 2
    assert abs(clock.offset + jump) < 2  # for people


@pytest.mark.parametrize("offset", [-3000.0, 45.0])
def test_a_clock_that_is_wrong_is_corrected_by_the_first_answer(clocks, offset):
    clocks.jump = offset
    clock = Clock("http://x", wall=clocks.wall, steady=clocks.steady)
    asked = clocks.steady()
    clocks.passed += 0.2
    clock.learn(clocks.date(), asked)
    assert abs(clock.now() - clocks.server()) < 2


@pytest.mark.parametrize("answered_after", [0.1, 35.0, 69.9])
def test_a_blocked_loop_or_a_held_poll_is_not_a_clock_offset(clocks, clock, answered_after):
    asked = clocks.steady()
    clocks.passed += answered_after
    date = clocks.date()
    clocks.passed += 70.0 - answered_after  # the answer is here, and nobody reads it
    clock.learn(date, asked)
    assert clock.offset == 0.0
    assert abs(clock.now() - clocks.server()) < 0.001


def test_the_age_of_a_result_does_not_depend_on_the_clock():
    delivery = delivery_of(a_link(), a_result(1))
    delivery.created -= 90_000.0  # the clock was set forward by 25 hours
    assert delivery.age < 5.0


async def test_a_clock_that_was_set_between_two_runs_discards_nothing_at_once(worker, orchestrator, tmp_path, caplog):
    refused = Fault(call="result", kind="status", status=503, times=2)
    orchestrator.inject(refused)
    store = SqliteStore(tmp_path, "w1")
    store.open()
    body = msgspec.msgpack.encode(a_result(1))
    store.put(Message(orchestrator.url, Kind.RESULT, "t1", body, time.time() - 90_000.0)).result()
    store.close()
    async with running(worker, orchestrator, state_dir=str(tmp_path)):
        taken = ("result", 200)  # as "ignored": it knows no such job
        await orchestrator.wait_for(lambda: taken in [(call.call, call.status) for call in orchestrator.requests])
    assert refused.used == 2
    assert not actions(caplog, "result_expired")


async def test_a_task_whose_deadline_passes_while_the_loop_is_blocked_does_not_run(worker):
    ran, is_blocked, go_on = [], threading.Event(), threading.Event()

    @worker.skill
    async def block():
        await asyncio.sleep(0.05)  # the next poll goes out
        is_blocked.set()
        go_on.wait(20)
        return {}

    @worker.skill
    async def late(ctx: TaskContext):
        ran.append(ctx.task_id)
        return {}

    async with Scripted() as server, in_thread(worker, server, max_concurrent_tasks=2):
        await server.hand_out({"task_id": "b", "type": "block"})
        await server.until(lambda: len(server.calls["poll"]) >= 2)
        await asyncio.to_thread(is_blocked.wait, 20)
        deadline = time.time() + 0.05
        await server.hand_out({"task_id": "l", "type": "late", "deadline": deadline})
        while time.time() <= deadline:  # noqa: ASYNC110 - a time is what is waited for
            await asyncio.sleep(0.01)
        go_on.set()
        await server.until(lambda: "l" in server.results())
        assert server.results()["l"]["error"]["code"] == "TIMEOUT_ERROR"
    assert ran == []


# ------------------------------------------------------------------------------------------------ on disk


async def test_with_always_a_result_is_on_disk_before_its_events_are_out(worker, tmp_path):
    @worker.skill(events={"step": {"type": "object"}})
    async def steps(ctx: TaskContext):
        ctx.send_event("step", {})
        return {}

    state = tmp_path / "state"

    def stored():
        """Return what is on disk; a copy is looked at, for the file is locked."""
        copy = tmp_path / "copy"
        shutil.copytree(state, copy)
        with contextlib.closing(sqlite3.connect(copy / "outbox-w1.sqlite3")) as connection:
            found = [kind for (kind,) in connection.execute("SELECT kind FROM waiting ORDER BY id")]
        shutil.rmtree(copy)
        return found

    def script(call):
        return NEVER if call.kind == "event" else None

    settings = {"result_durability": "always", "state_dir": str(state), "shutdown_timeout": 0.1}
    async with Scripted(script) as server, running(worker, server, **settings):
        await server.hand_out({"task_id": "t", "type": "steps"})
        await server.until(lambda: server.calls["event"])
        async with asyncio.timeout(4.0):  # the result waits for its events for 5 s
            while "result" not in stored():  # noqa: ASYNC110 - a file wakes nobody
                await asyncio.sleep(0.05)
        assert not server.calls["result"]
        worker.request_shutdown()
        worker.request_shutdown()
