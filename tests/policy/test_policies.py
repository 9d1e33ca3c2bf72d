"""Decisions: back-off, slots, polls, states, heartbeats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy import link_state
from avtomatika_worker.policy.adaptive_polls import AdaptivePollCount
from avtomatika_worker.policy.backoff import LONGEST_WAIT, Backoff, BackoffPolicy
from avtomatika_worker.policy.heartbeat import Catalogue, HeartbeatMemory, WorkerState, bounded_interval
from avtomatika_worker.policy.slots import Slots
from avtomatika_worker.protocol.dialects import DIALECTS, NEWEST
from avtomatika_worker.protocol.messages import DeviceUsage, ResourcesUsage, SkillInfo, WorkerStatus

CATALOGUE = Catalogue("w", (SkillInfo(name="echo", type="echo"),), "hash", {}, {})
STATE = WorkerState(available_skills=("echo",))


@given(st.integers(1, 10_000), st.floats(0, 0.999), st.floats(0.01, 10), st.floats(10, 1000))
def test_delays_stay_within_their_bounds(attempt, jitter, initial, maximum):
    assert 0 <= BackoffPolicy(initial, maximum).delay(attempt, jitter) <= maximum


@given(st.integers(1, 100), st.floats(0, 0.999), st.floats(0, 3600))
def test_what_the_other_side_asked_for_is_a_floor_up_to_some_minutes(attempt, jitter, asked):
    assert BackoffPolicy().delay(attempt, jitter, retry_after=asked) >= (asked if asked <= LONGEST_WAIT else 0)


@given(st.integers(1, 100), st.floats(0, 0.999), st.floats(0, allow_infinity=True))
def test_no_requested_wait_exceeds_some_minutes(attempt, jitter, asked):
    policy = BackoffPolicy()
    assert policy.delay(attempt, jitter, retry_after=asked) <= LONGEST_WAIT + policy.maximum
    wait = policy.delay(attempt, jitter, retry_after=asked, rate_limited=True)
    assert min(asked, policy.rate_limit_floor) <= wait <= LONGEST_WAIT + policy.maximum


def test_a_bare_429_waits_out_the_window_of_a_minute():
    assert Backoff(BackoffPolicy()).failed(0.0, rate_limited=True) > 60


def test_success_forgets_failures():
    backoff = Backoff(BackoffPolicy(1, 60))
    for _ in range(5):
        backoff.failed(0.5)
    backoff.succeeded()
    assert backoff.failed(0.5) == 0.5


@given(st.integers(1, 20), st.lists(st.sampled_from(["reserve", "start", "release", "finish"])))
def test_slots_are_never_over_or_under(total, steps):
    slots = Slots(total)
    for step in steps:
        try:
            getattr(slots, step)()
        except RuntimeError:
            continue
    assert slots.free + slots.polling + slots.running == total
    assert min(slots.free, slots.polling, slots.running) >= 0


@given(st.integers(1, 100), st.lists(st.sampled_from(["got_task", "came_empty", "failed"])))
def test_polls_never_exceed_the_slots_and_never_stop(most, steps):
    demand = AdaptivePollCount(most)
    for step in steps:
        getattr(demand, step)()
    assert 1 <= demand.target <= most


@pytest.mark.parametrize("module", [link_state])
def test_an_event_that_has_no_entry_raises_and_names_both(module):
    states = {state for state, _ in module.TRANSITIONS}
    events = {event for _, event in module.TRANSITIONS}
    missing = [(s, e) for s in states for e in events if (s, e) not in module.TRANSITIONS]
    assert missing
    for state, event in missing:
        with pytest.raises(ValueError, match=f"{state}.*{event}"):
            module.step(state, event)


def test_a_link_that_is_closed_stays_closed():
    assert all(state is not link_state.LinkState.CLOSED or target is state
               for (state, _), target in link_state.TRANSITIONS.items())  # fmt: skip


@given(st.floats(1, 100), st.floats(-1e6, 1e6))
def test_the_orchestrators_jitter_is_bounded(interval, jitter):
    assert 0.5 * interval <= bounded_interval(interval, jitter) <= 1.5 * interval


def test_skills_go_out_once_and_again_on_request():
    memory = HeartbeatMemory(15)
    assert memory.compose(STATE, CATALOGUE, NEWEST).catalogue
    memory.sent(STATE, CATALOGUE, 0, jitter=0, full_sync=False)
    assert memory.compose(STATE, CATALOGUE, NEWEST).catalogue is None
    memory.sent(STATE, CATALOGUE, 1, jitter=0, full_sync=True)
    assert memory.compose(STATE, CATALOGUE, NEWEST).catalogue


def test_capabilities_go_out_once_after_each_registration_and_on_request():
    memory, included = HeartbeatMemory(15), []
    for full_sync in (False, False, True, False):
        included.append(memory.compose(STATE, CATALOGUE, NEWEST).capabilities is not None)
        memory.sent(STATE, CATALOGUE, 0, jitter=0, full_sync=full_sync)
    memory.registered(STATE, CATALOGUE, 1)
    included.append(memory.compose(STATE, CATALOGUE, NEWEST).capabilities is not None)
    assert included == [True, False, False, True, True]


@pytest.mark.parametrize("asked", [0.0, 0.2, 61.0])
def test_after_a_heartbeat_too_many_no_other_follows_its_registration_at_once(asked):
    memory = HeartbeatMemory(15)
    memory.sent(STATE, CATALOGUE, 100.0, jitter=0, full_sync=False)
    memory.limited(115.0, asked)
    assert memory.due_at(115.0) == 115.0
    memory.registered(STATE, CATALOGUE, 116.0)  # it took longer than some ask for
    assert memory.due_at(116.0) == 131.0
    memory.sent(STATE, CATALOGUE, 131.0, jitter=0, full_sync=False)
    memory.registered(STATE, CATALOGUE, 140.0)
    assert memory.due_at(140.0) == 140.0


def test_up_to_1_0b8_a_change_of_availability_sends_the_catalogue():
    memory = HeartbeatMemory(15)
    memory.sent(STATE, CATALOGUE, 0, jitter=0, full_sync=False)
    fewer = WorkerState(available_skills=())
    assert memory.compose(fewer, CATALOGUE, DIALECTS[0]).catalogue
    assert memory.compose(fewer, CATALOGUE, NEWEST).catalogue is None


def test_a_change_of_state_is_due_within_a_tenth_of_a_second():
    memory = HeartbeatMemory(15)
    memory.sent(STATE, CATALOGUE, 100.0, jitter=0, full_sync=False)
    memory.noticed(STATE, 101.0)
    assert memory.due_at(101.0) == 115.0
    memory.noticed(WorkerState(status=WorkerStatus.DRAINING, available_skills=("echo",)), 102.0)
    assert memory.due_at(102.0) <= 102.1


def test_flapping_is_paced_below_the_orchestrators_limit():
    memory, now, sent = HeartbeatMemory(15), 0.0, 0
    states = [WorkerState(available_skills=("a",)), WorkerState(available_skills=("b",))]
    while now < 60:
        memory.noticed(states[sent % 2], now)
        now = max(now, memory.due_at(now))
        memory.sent(states[sent % 2], CATALOGUE, now, jitter=0, full_sync=False)
        sent += 1
    assert sent < 100


def test_draining_is_due_at_once_however_often_the_state_has_changed_before():
    memory, now, room, none = HeartbeatMemory(15), 0.0, STATE, WorkerState(available_skills=())
    for _ in range(100):
        room, none = none, room
        memory.noticed(room, now)
        if memory.due_at(now) > now + 0.2:
            break
        memory.sent(room, CATALOGUE, now, jitter=0, full_sync=False)
    else:
        pytest.fail("changes are never held back")
    memory.noticed(WorkerState(status=WorkerStatus.DRAINING), now)
    assert memory.due_at(now) <= now + 0.1
    memory.sent(WorkerState(status=WorkerStatus.DRAINING), CATALOGUE, now, jitter=0, full_sync=False)
    memory.noticed(WorkerState(status=WorkerStatus.DRAINING, running_jobs=("j",)), now)
    assert memory.due_at(now) > now + 0.2


def test_after_a_failure_nothing_goes_out_before_its_delay():
    memory = HeartbeatMemory(15)
    memory.noticed(STATE, 10.0)
    memory.failed(10.0, 5.0)
    memory.noticed(STATE, 10.1)
    assert memory.due_at(10.1) == 15.0


def _usage(cpu=50.0, ram=8.0, **devices):
    loads = tuple(DeviceUsage(unit_id=unit, load_percent=load) for unit, load in devices.items()) or None
    return ResourcesUsage(cpu_load_percent=cpu, ram_used_gb=ram, devices_usage=loads)


@pytest.mark.parametrize(
    ("reported", "now", "is_news"),
    [
        (_usage(50), _usage(54.9), False),
        (_usage(50), _usage(55), True),
        (_usage(50), _usage(45), True),
        (_usage(ram=8.0), _usage(ram=8.3), False),
        (_usage(ram=8.0), _usage(ram=8.5), True),
        (_usage(ram=0.0), _usage(ram=0.0), False),
        (_usage(gpu=10.0), _usage(gpu=14.0), False),
        (_usage(gpu=10.0), _usage(gpu=15.0), True),
        (_usage(gpu=10.0), _usage(), True),
    ],
)
def test_usage_is_reported_when_it_leaves_the_dead_band(reported, now, is_news):
    memory = HeartbeatMemory(15.0)
    assert memory.usage_to_report(reported, 0.0) is reported
    memory.usage_reported(reported, 0.0)
    assert (memory.usage_to_report(now, 30.0) is now) == is_news
    assert memory.usage_to_report(now, 60.0) is now  # and once a minute in any case


def test_a_registration_forgets_the_usage_that_was_reported():
    memory = HeartbeatMemory(15.0)
    memory.usage_reported(_usage(), 0.0)
    assert memory.usage_to_report(_usage(), 1.0) is None
    memory.registered(STATE, CATALOGUE, 2.0)
    assert memory.usage_to_report(_usage(), 2.0) is not None
    assert memory.usage_to_report(None, 2.0) is None
