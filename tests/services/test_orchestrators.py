"""Several orchestrators: order, shares, and no outage of one that another one feels."""

import asyncio
import contextlib
import json
from collections import Counter

import pytest

from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.config import MultiOrchestratorMode, OrchestratorSettings
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from avtomatika_worker.worker.make_links import FAILOVER_HEARTBEAT
from services.assembled import make_supervisor
from services.conftest import asked_for, make_settings


@contextlib.asynccontextmanager
async def at(worker, orchestrators, mode, *, weights=None, up=None, **settings):
    """Run ``worker`` for several orchestrators, the first with the highest priority."""
    configured = [
        {"url": each.url, "priority": number, "weight": (weights or {}).get(number, 1), "token": each.token}
        for number, each in enumerate(orchestrators)
    ]
    environment = {
        "WORKER_ID": "w1",
        "ORCHESTRATORS_CONFIG": json.dumps(configured),
        "MULTI_ORCHESTRATOR_MODE": mode,
    }
    settings = make_settings(worker, environment, settings)
    main = asyncio.create_task(worker.main(settings, health_check=False))
    try:
        for each in up if up is not None else orchestrators:
            await each.wait_for_worker("w1", timeout=10)
        yield main
    finally:
        await worker.shutdown()
        await main


@contextlib.asynccontextmanager
async def orchestrators(count, **options):
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(EmbeddedOrchestrator(token=f"token-{n}", poll_time=20.0, **options))
            for n in range(count)
        ]


@pytest.fixture
def order(worker):
    """Skills that note where their tasks came from."""
    came = []

    @worker.skill
    async def note(params: dict, ctx: TaskContext):
        came.append(params["from"])
        ctx.send_event("seen", {"from": params["from"]})
        await asyncio.sleep(params.get("seconds", 0.01))
        return params

    return came


def submit(orchestrator, name, count=1, **params):
    return [orchestrator.submit("note", {"from": name, **params}) for _ in range(count)]


async def finished(jobs, timeout=20):
    for job in jobs:
        assert (await job.done(timeout=timeout)).state is JobState.FINISHED


async def test_a_waiting_poll_keeps_no_room_from_a_skill_that_none_asks_for():
    """Skills share room, and the poll in flight was sent when one of them had none of its own."""
    worker = Worker(skill_type_limits={"gpu": 2})
    gates, rendering = {"paint": asyncio.Event(), "render": asyncio.Event()}, asyncio.Event()

    @worker.skill(type="gpu", max_concurrent=1)
    async def paint():
        await gates["paint"].wait()

    @worker.skill(type="gpu")
    async def render():
        rendering.set()
        await gates["render"].wait()

    async with orchestrators(2) as (a, b):
        asked = asked_for(a)
        async with at(worker, [a, b], "ROUND_ROBIN", max_concurrent_tasks=8):
            await a.wait_for(lambda: asked)
            painted = a.submit("paint", {})
            await a.wait_for(lambda: asked[-1] == {"render"})
            rendered = b.submit("render", {})
            await rendering.wait()
            gates["paint"].set()
            await finished([painted])
            await finished([a.submit("paint", {})], timeout=10)
            assert rendered.state is JobState.RUNNING
            gates["render"].set()
            await finished([rendered])


@pytest.mark.parametrize("mode", ["WATERFALL", "ROUND_ROBIN"])
@pytest.mark.parametrize("slots", [1, 4])
async def test_no_orchestrator_starves_behind_the_long_poll_of_another(worker, order, mode, slots):
    async with orchestrators(3) as all_, at(worker, all_, mode, max_concurrent_tasks=slots):
        for name, orchestrator in enumerate(all_):
            await finished(submit(orchestrator, name), timeout=10)  # the polls of the others last 20 s


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_task_in_hand_takes_the_slot_of_a_poll_that_has_brought_nothing_yet(worker, order, slots):
    async with orchestrators(3) as all_, at(worker, all_, "ROUND_ROBIN", max_concurrent_tasks=slots):
        for each in all_:
            await each.wait_for(
                lambda each=each: each.workers["w1"].polls
            )  # more polls than slots: some have lent theirs
        for name, orchestrator in enumerate(all_):
            await finished(submit(orchestrator, name), timeout=10)  # the polls of the others last 20 s


async def test_results_and_events_go_back_where_the_task_came_from(worker, order):
    async with orchestrators(2) as all_, at(worker, all_, "ROUND_ROBIN"):
        jobs = [job for name, each in enumerate(all_) for job in submit(each, name, 5)]
        await finished(jobs)
        for name, each in enumerate(all_):
            calls = [call for call in each.requests if call.call in {"result", "event"}]
            assert {call.status for call in calls} == {200}
            assert {job.result["from"] for job in each.jobs.values()} == {name}
            assert {event["payload"]["from"] for job in each.jobs.values() for event in job.events} == {name}


async def test_waterfall_serves_the_higher_priority_first(worker, order):
    async with orchestrators(2) as all_:
        jobs = submit(all_[1], "low", 20) + submit(all_[0], "high", 20)
        async with at(worker, all_, "WATERFALL", max_concurrent_tasks=2):
            await finished(jobs)
    assert Counter(order[:20])["high"] >= 17  # but for those that came before the first poll of "high" was answered


async def test_waterfall_gives_what_is_left_idle_to_the_lower_ones(worker, order):
    go_on = asyncio.Event()

    @worker.skill
    async def hold():
        await go_on.wait()

    async with orchestrators(2) as all_, at(worker, all_, "WATERFALL", max_concurrent_tasks=4):
        held = [all_[0].submit("hold") for _ in range(2)]
        await all_[0].wait_for(lambda: all(job.state is JobState.RUNNING for job in held))
        await finished(submit(all_[1], "low", 10))
        assert {job.state for job in held} == {JobState.RUNNING}
        go_on.set()
        await finished(held)


async def test_round_robin_shares_the_tasks_by_weight(worker, order):
    async with orchestrators(2) as all_:
        jobs = submit(all_[0], "three", 60) + submit(all_[1], "one", 60)
        async with at(worker, all_, "ROUND_ROBIN", weights={0: 3}, max_concurrent_tasks=4):
            await finished(jobs)
    share = Counter(order[:60])["three"]
    assert 40 <= share <= 50  # 45 is three in four


async def test_in_failover_heartbeats_are_frequent_where_another_orchestrator_stands_in_and_only_there(worker):
    async with orchestrators(2) as (first, second):
        config = (
            OrchestratorSettings(url=first.url),
            OrchestratorSettings(url=second.url, priority=2),
        )
        _, engine = make_supervisor(
            worker,
            first,
            orchestrators_config=config,
            multi_orchestrator_mode=MultiOrchestratorMode.FAILOVER,
            heartbeat_interval=15.0,
        )
    assert [link.settings.heartbeat_interval for link in engine.links] == [FAILOVER_HEARTBEAT, 15.0]


async def test_failover_leaves_the_second_alone_until_the_first_is_out_of_reach_and_returns(worker, order):
    async with orchestrators(2) as (first, second), at(worker, (first, second), "FAILOVER"):
        jobs = submit(second, "second", 3)
        await finished(submit(first, "first", 5))
        assert set(order) == {"first"}
        await first.stop()
        await finished(jobs)
        await first.start()
        await first.wait_for_worker("w1")
        since = len(order)
        waiting = submit(second, "second")
        await finished(submit(first, "first", 5))
        await first.wait_for(lambda: first.workers["w1"].polls)
        assert Counter(order[since:])["first"] == 5
        assert Counter(order[since:])["second"] <= 1  # with a poll that was in flight when the first came back
        del waiting


@pytest.mark.parametrize(
    ("mode", "trouble"),
    [(mode, trouble) for mode in ("WATERFALL", "ROUND_ROBIN") for trouble in ("down", "slow", "limited", "garbage")]
    + [("FAILOVER", trouble) for trouble in ("down", "slow", "garbage")],
)
async def test_the_trouble_of_one_is_not_felt_by_the_others(worker, order, mode, trouble):
    async with orchestrators(3) as all_:
        sick, *well = all_
        faults = {
            "slow": Fault(call="any", kind="delay", delay=8.0, times=None),
            "limited": Fault(call="poll", kind="status", status=429, times=None),
            "garbage": Fault(call="any", kind="garbage", times=None),
        }
        if trouble == "down":
            await sick.stop()
        else:
            sick.inject(faults[trouble])
        async with at(
            worker, all_, mode, up=well, max_concurrent_tasks=2, heartbeat_interval=0.3, rate_limit_wait=30.0
        ):
            served = well if mode != "FAILOVER" else well[:1]
            for name, each in enumerate(served):
                await finished(submit(each, name, 10), timeout=7)
            beats = [call.time for each in served for call in each.requests if call.call == "heartbeat"]
            assert len(beats) >= len(served)
            if trouble != "down":
                await sick.stop()  # so that the worker need not wait for answers when it ends
        await sick.start()


async def test_each_outbox_waits_for_its_own_orchestrator(worker, order):
    async with orchestrators(2) as (first, second), at(worker, (first, second), "ROUND_ROBIN", max_concurrent_tasks=4):
        refusal = Fault(call="result", kind="status", times=None)
        first.inject(refusal)
        held = submit(first, "first", 4)
        await first.wait_for(lambda: refusal.used >= 4 and {job.state for job in held} == {JobState.RUNNING})
        await finished(submit(second, "second", 20))
        assert {job.state for job in held} == {JobState.RUNNING}
        first.clear_faults()
        await finished(held)


async def test_a_token_of_each_orchestrator_and_none_of_another_is_sent(worker, order):
    async with orchestrators(3) as all_, at(worker, all_, "ROUND_ROBIN"):
        for name, each in enumerate(all_):
            await finished(submit(each, name, 2))
            assert not [call for call in each.requests if call.status in {401, 403}]
            others = {f"token-{n}" for n in range(3)} - {each.token}
            assert not any(token in str(call.headers) for call in each.requests for token in others)


async def test_a_worker_with_one_slot_runs_one_task_at_a_time_although_its_polls_lend_theirs():
    worker, now, most = Worker(), Counter(), Counter()

    @worker.skill
    async def alone():
        now["n"] += 1
        most["n"] = max(most["n"], now["n"])
        await asyncio.sleep(0.05)
        now["n"] -= 1

    async with orchestrators(3) as all_, at(worker, all_, "WATERFALL", max_concurrent_tasks=1):
        for each in all_:  # with one slot: each poll lends its own
            await each.wait_for(lambda worker=each.workers["w1"]: worker.polls)
        jobs = [each.submit("alone", {}) for _ in range(5) for each in all_]
        await finished(jobs)
    assert most["n"] == 1
