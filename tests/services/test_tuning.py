"""WORKER_SLOT_TUNER=resource: fewer tasks begin while memory or CPU run short, those that run go on."""

import asyncio

import pytest

from avtomatika_worker import ConfigError, threadsafe
from avtomatika_worker.config import load_settings
from avtomatika_worker.devserver import JobState
from avtomatika_worker.monitoring.slot_tuning import SlotTuning, tune_slots
from avtomatika_worker.observability.usage_meter import UsageMeter
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.slot_tuner import Load, SlotTuner, TunerPolicy
from avtomatika_worker.policy.slots import Slots
from services.assembled import make_supervisor, supervised
from services.conftest import actions

ALWAYS_SHORT = 0.001
"""A target for memory, in percent, that every machine is beyond."""


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - slots do not wake anybody
            await asyncio.sleep(0.01)


async def test_under_pressure_fewer_tasks_begin_and_none_is_stopped(orchestrator, worker, caplog):
    running_now, most, let_go = set(), [], asyncio.Event()

    @worker.skill
    async def hold(job_id: str):
        running_now.add(job_id)
        most.append(len(running_now))
        await let_go.wait()
        running_now.discard(job_id)

    policy, published = TunerPolicy(1, 2, memory_target=ALWAYS_SHORT), threadsafe.Watch(WorkerState(slots_total=2))
    to_main = threadsafe.CallQueue(asyncio.get_running_loop())

    async def tune():  # on the link thread, as `make_monitoring` has it
        await tune_slots(policy, UsageMeter().shares, published, to_main, engine.tasks).run()

    supervisor, engine = make_supervisor(worker, orchestrator, link_services=[tune], max_concurrent_tasks=2)
    async with supervised(supervisor, orchestrator):
        first = [orchestrator.submit("hold") for _ in range(2)]
        await until(lambda: len(running_now) == 2 or engine.tasks.slots.usable == 1)  # on a slow machine the latter
        begun = set(running_now)
        await until(lambda: engine.tasks.slots.usable == 1)
        assert begun <= running_now
        later = [orchestrator.submit("hold") for _ in range(4)]
        most.clear()
        let_go.set()
        for job in first + later:
            assert (await job.done()).state is JobState.FINISHED
    assert most
    assert max(most) == 1
    assert "1 of 2 slots may be used" in actions(caplog, "slots_shrunk")[0]
    assert "memory is at" in actions(caplog, "slots_shrunk")[0]


def test_slots_shrink_as_tasks_run_and_come_back_within_their_bounds_and_each_step_is_logged(caplog):
    slots, now = Slots(4), 0.0
    published = threadsafe.Watch(WorkerState(slots_total=4))
    tuning = SlotTuning(SlotTuner(TunerPolicy(2, 4)), published, lambda: (0.0, 0.0), slots.limit)
    for _ in range(3):
        slots.reserve()
        slots.start()
    published.publish(WorkerState(slots_total=4, slots_running=3))
    sizes = []
    for load in [Load(memory=99, cpu=5)] * 5 + [Load(memory=5, cpu=99)] + [Load(memory=5, cpu=5)] * 30:
        tuning.look(load, now)
        now += 5
        sizes.append(slots.usable)
    assert sizes[:5] == [2] * 5  # one less than run, and that is the least
    assert slots.running == 3  # nobody stopped them
    assert sizes[5:] == sorted(sizes[5:])
    assert slots.usable == 4
    assert actions(caplog, "slots_shrunk") == ["memory is at 99 % (target 80 %): 2 of 4 slots may be used"]
    assert actions(caplog, "slots_grown") == [f"{n} of 4 slots may be used again" for n in (3, 4)]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"WORKER_SLOT_TUNER": "memory"}, "must be one of off, resource"),
    ],
)
def test_wrong_settings_for_tuning_are_named(variables, problem):
    with pytest.raises(ConfigError, match=problem):
        load_settings(variables)


async def test_a_load_that_cannot_be_measured_changes_nothing_and_is_reported_once(caplog):
    published, applied, looks = threadsafe.Watch(WorkerState(slots_total=4)), [], []

    def measure():
        looks.append(1)
        raise PermissionError("/proc/meminfo")

    tuning = asyncio.create_task(SlotTuning(SlotTuner(TunerPolicy(1, 4)), published, measure, applied.append).run())
    await until(lambda: len(looks) == 2)  # the first has been reported then
    tuning.cancel()
    await asyncio.gather(tuning, return_exceptions=True)
    assert actions(caplog, "load_unknown") == ["the load cannot be measured: PermissionError: /proc/meminfo"]
    assert applied == []
