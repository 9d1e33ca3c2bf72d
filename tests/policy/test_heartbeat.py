"""When heartbeats are due, to the second, and all that is in one."""

import pytest
from msgspec.structs import replace

from avtomatika_worker.policy import heartbeat
from avtomatika_worker.policy.heartbeat import Catalogue, HeartbeatMemory, WorkerState, bounded_interval, differs
from avtomatika_worker.protocol.dialects import NEWEST, OLDEST
from avtomatika_worker.protocol.messages import DeviceUsage, Heartbeat, ResourcesUsage, SkillInfo, WorkerStatus

SKILLS = (SkillInfo(name="echo", type="echo"),)
CATALOGUE = Catalogue("w", SKILLS, "hash", {"websockets": True}, {"echo": ["model"]})
STATE = WorkerState(
    status=WorkerStatus.BUSY,
    running_jobs=("j",),
    available_skills=("echo",),
    hot_skills=("hot",),
    hot_cache=("model",),
)
USAGE = ResourcesUsage(cpu_load_percent=50.0, ram_used_gb=8.0)
OTHER = replace(STATE, available_skills=())


def settled(at=100.0, credit_used=0, interval=15.0):
    """Return the memory of a worker whose last heartbeat was accepted at this time."""
    memory = HeartbeatMemory(interval)
    for _ in range(credit_used + 1):
        memory.sent(STATE, CATALOGUE, at, jitter=0.0, full_sync=False)
    return memory


def test_the_first_heartbeat_has_everything():
    assert HeartbeatMemory(15.0).compose(STATE, CATALOGUE, NEWEST, USAGE) == Heartbeat(
        worker_id="w",
        status=WorkerStatus.BUSY,
        skills_hash="hash",
        current_tasks=("j",),
        available_skills=("echo",),
        hot_skills=("hot",),
        hot_cache=("model",),
        skill_dependencies={"echo": ["model"]},
        catalogue=SKILLS,
        usage=USAGE,
        capabilities={"websockets": True},
    )


def test_another_hash_sends_the_skills_again():
    memory = settled()
    assert memory.compose(STATE, CATALOGUE, NEWEST).catalogue is None
    assert memory.compose(STATE, replace(CATALOGUE, skills_hash="other"), NEWEST).catalogue == SKILLS


def test_an_old_orchestrator_gets_the_skills_again_when_others_are_available_and_only_then():
    memory = settled()
    assert memory.compose(STATE, CATALOGUE, OLDEST).catalogue is None
    assert memory.compose(OTHER, CATALOGUE, OLDEST).catalogue == SKILLS
    assert memory.compose(OTHER, CATALOGUE, NEWEST).catalogue is None


@pytest.mark.parametrize(
    "change",
    [
        {"status": WorkerStatus.IDLE},
        {"available_skills": ()},
        {"hot_skills": ()},
        {"hot_cache": ()},
    ],
    ids=str,
)
def test_what_decides_where_tasks_go_is_reported_soon(change):
    memory = settled()
    memory.noticed(replace(STATE, **change), 101.0)
    assert memory.due_at(101.0) == 101.05


@pytest.mark.parametrize("change", [{"running_jobs": ()}, {"slots_running": 3}], ids=str)
def test_what_decides_nothing_waits_for_the_next_heartbeat(change):
    memory = settled()
    memory.noticed(replace(STATE, **change), 101.0)
    assert memory.due_at(101.0) == 115.0


def test_changes_share_a_heartbeat_that_the_first_of_them_makes_due():
    memory = settled()
    memory.noticed(OTHER, 101.0)
    memory.noticed(replace(STATE, hot_skills=()), 101.04)
    assert memory.due_at(101.04) == 101.05


def test_a_change_that_was_undone_needs_no_heartbeat():
    memory = settled()
    memory.noticed(OTHER, 101.0)
    memory.noticed(STATE, 101.01)
    assert memory.due_at(101.01) == 115.0


def test_twenty_changes_go_at_once_and_then_one_each_second():
    memory = settled(credit_used=19)
    memory.noticed(OTHER, 100.0)
    assert memory.due_at(100.0) == 101.0, "its credit is used up"
    assert memory.due_at(100.75) == 101.0, "one comes back each second"
    assert memory.due_at(101.0) == 100.05
    rested = settled(at=0.0, credit_used=19, interval=5000.0)
    for number in range(21):
        rested.noticed(OTHER, 1000.0)
        assert rested.due_at(1000.0) == (1000.05 if number < 20 else 1001.0), "it never holds more than twenty"
        rested.sent(STATE, CATALOGUE, 1000.0, jitter=0.0, full_sync=False)


def test_only_the_beginning_of_draining_is_reported_without_credit():
    memory = settled(credit_used=19)
    draining = replace(STATE, status=WorkerStatus.DRAINING)
    memory.noticed(draining, 100.0)
    assert memory.due_at(100.0) == 100.05
    memory.sent(draining, CATALOGUE, 100.0, jitter=0.0, full_sync=False)
    memory.noticed(replace(draining, hot_skills=()), 100.0)
    assert memory.due_at(100.0) == 101.0


def test_a_change_never_delays_the_regular_heartbeat():
    memory = settled()
    memory.noticed(OTHER, 114.99)
    assert memory.due_at(114.99) == 115.0


def test_an_accepted_heartbeat_settles_the_changes():
    memory = settled()
    memory.noticed(OTHER, 101.0)
    memory.sent(OTHER, CATALOGUE, 101.05, jitter=2.0, full_sync=False)
    assert memory.due_at(101.05) == pytest.approx(118.05)
    memory.noticed(OTHER, 102.0)
    assert memory.due_at(102.0) == pytest.approx(118.05)


def test_the_orchestrator_may_ask_for_all_of_it_again():
    memory = settled()
    memory.sent(STATE, CATALOGUE, 115.0, jitter=0.0, full_sync=True)
    full = memory.compose(STATE, CATALOGUE, NEWEST)
    assert (full.catalogue, full.capabilities) == (SKILLS, {"websockets": True})
    memory.registered(STATE, CATALOGUE, 116.0)
    after = memory.compose(STATE, CATALOGUE, NEWEST)
    assert (after.catalogue, after.capabilities) == (None, {"websockets": True}), "a registration had the skills"


def test_after_a_registration_a_heartbeat_is_due_at_once_whatever_failed_before():
    memory = settled()
    memory.failed(115.0, 60.0)
    assert memory.due_at(120.0) == 175.0
    memory.registered(STATE, CATALOGUE, 130.0)
    assert memory.due_at(130.0) == 130.0


def test_while_the_orchestrator_takes_no_heartbeats_a_change_makes_none_due():
    memory = settled()
    memory.limited(115.0, 60.0)
    memory.registered(STATE, CATALOGUE, 116.0)
    memory.noticed(OTHER, 117.0)
    assert memory.due_at(117.0) == 131.0
    assert memory.due_at(174.9) == 131.0
    assert memory.due_at(175.0) == 131.0, "it is due by then"
    assert memory.held_until == 175.0


@pytest.mark.parametrize(
    ("jitter", "interval"), [(0, 10), (3, 13), (-3, 7), (5, 15), (5.1, 15), (-5, 5), (-5.1, 5), (1e9, 15)]
)
def test_an_interval_is_shifted_by_at_most_half_of_itself(jitter, interval):
    assert bounded_interval(10, jitter) == interval


def test_usage_that_was_reported_a_minute_ago_is_news():
    memory = settled()
    memory.usage_reported(USAGE, 100.0)
    assert memory.usage_to_report(USAGE, 159.9) is None
    assert memory.usage_to_report(USAGE, 160.0) is USAGE
    memory.usage_reported(None, 160.0)
    assert memory.usage_to_report(USAGE, 160.0) is USAGE, "a heartbeat without usage reported none"


@pytest.mark.parametrize(
    ("before", "now", "news"), [(100, 105.3, True), (100, 105.2, False), (19, 20, True), (0, 0.1, True), (0, 0, False)]
)
def test_memory_is_news_from_a_twentieth_of_the_larger_on(before, now, news):
    for usage, reported in ((before, now), (now, before)):
        assert differs(replace_ram(usage), replace_ram(reported)) == news


def test_each_device_is_compared_with_itself():
    one, two = (DeviceUsage(unit_id=unit, load_percent=10.0) for unit in ("one", "two"))
    hot = DeviceUsage(unit_id="two", load_percent=15.0)
    assert not differs(devices(one, two), devices(two, one))
    assert differs(devices(one, hot), devices(one, two))
    assert differs(devices(one), devices(two))
    assert differs(devices(one), devices(one, two))


def replace_ram(ram):
    return ResourcesUsage(cpu_load_percent=50.0, ram_used_gb=ram)


def devices(*each):
    return ResourcesUsage(cpu_load_percent=50.0, ram_used_gb=8.0, devices_usage=each)


def test_heartbeats_for_changes_stay_below_the_limit_of_orchestrators():
    assert heartbeat.BURST + 60 * heartbeat.REFILL < 120
