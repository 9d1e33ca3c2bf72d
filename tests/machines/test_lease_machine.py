"""A worker's lease at one orchestrator: heartbeats, and the registrations that stand in for them, against a model.

The model knows when the orchestrator last accepted a sign of life, since when it answers well, and which state
was reported last.
"""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from avtomatika_worker import threadsafe
from avtomatika_worker.link.heartbeats import Announcement, Heartbeats
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.policy.heartbeat import Catalogue, WorkerState
from avtomatika_worker.protocol.messages import Capabilities, Resources, WorkerRegistration, WorkerStatus
from machines.stage import Stage, Wire, run_machine

INTERVAL = 15.0
FLICKER = 15.0
"""The longest pause before a registration after a break."""
ANSWERED_WITHIN = 1.0
PROMISED = 1.5 * INTERVAL + 2 * ANSWERED_WITHIN + 0.1
"""Seconds between two signs of life, while they are answered well: an orchestrator may shift each by half of that."""
BACK_WITHIN = 1.25 * 61.0 + FLICKER + 30.0
"""Seconds after the orchestrator's recovery in which the worker is known there: a wait, a call that hangs, a pause."""
MOST_A_MINUTE = 120
"""Heartbeats that orchestrators accept in a minute."""
FLICKERS_EVERY = 0.06
"""Seconds between two changes of state that are not taken together."""

IDLE = WorkerState(available_skills=("echo",))
REGISTRATION = WorkerRegistration(
    worker_id="w1",
    worker_type="test",
    supported_skills=(),
    available_skills=(),
    resources=Resources(max_concurrent_tasks=1, cpu_cores=1, ram_gb=1.0),
    capabilities=Capabilities(hostname="h", ip_address="10.0.0.1"),
    skills_hash="hash",
)


class LeaseMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed):
        self.stage = stage = Stage(seed)
        self.mode, self.well_since = "well", -1000.0
        self.jitter_ms, self.full_sync, self.retry_after = 0, False, None
        self.latency = 0.01
        self.known_there = False
        self.accepted = self.changed_at = 0.0
        self.broken_at = self.limited_at = -1000.0
        self.heartbeats, self.offline_at = [], None
        self.status_there = None
        self.watch = threadsafe.Watch(IDLE)
        self.wire = Wire(stage, self.on_call)
        policy = BackoffPolicy(1.0, 60.0, 61.0)
        settings = LinkSettings(
            url="http://o.test", token="t", heartbeat_interval=INTERVAL, registration=policy, calls=policy
        )
        self.link = Link(settings, "w1", self.wire, world=stage.world)
        self.link.open()
        announcement = Announcement(REGISTRATION, Catalogue("w1", (), "hash", None, {}))
        self.service = Heartbeats(self.link, self.watch, announcement, lambda *_: None, lambda: None)
        self.running = stage.begin(stage.link, self.service.run())

    # ------------------------------------------------------------------------------------------- the orchestrator

    def on_call(self, call):
        now = self.stage.time()
        assert self.offline_at is None, f"a {call.kind} at {now} after the last word at {self.offline_at}"
        if call.kind == "heartbeat":
            self.heartbeats = [each for each in self.heartbeats if each > now - 60.0] + [now]
            assert len(self.heartbeats) <= MOST_A_MINUTE
        if self.mode != "silent":
            self.stage.link.call_later(self.latency, self.answer, call)

    def answer(self, call):
        if self.mode == "broken":
            call.fail()
        elif self.mode == "refusing":
            call.answer(503, {})
        elif self.mode == "silent":
            pass
        elif call.kind == "register":
            self.known_there = True
            self.sign_of_life()
            call.answer(200)
        elif self.mode == "limiting":
            self.limited_at = self.stage.time()
            headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
            call.answer(429, {}, **headers)
        elif not self.known_there:
            self.broken_at = self.stage.time()
            call.answer(404, {})
        else:
            self.sign_of_life()
            self.status_there = call.body["status"]
            asks = {"next_heartbeat_jitter_ms": self.jitter_ms, "require_full_sync": self.full_sync}
            self.full_sync = False
            call.answer(200, {"status": "ok", **asks})

    def sign_of_life(self):
        self.check_lease()
        self.accepted = self.stage.time()

    def check_lease(self):
        """Hold the time since the last sign of life to the promise."""
        now = self.stage.time()
        if self.offline_at is not None or self.mode in {"broken", "refusing", "silent"}:
            return
        if self.well_since <= self.accepted:
            most = PROMISED + (FLICKER + ANSWERED_WITHIN if self.broken_at >= self.accepted else 0.0)
            assert now - self.accepted <= most, f"no sign of life for {now - self.accepted} s at {now}"
        else:
            assert now - self.well_since <= BACK_WITHIN, f"not back {now - self.well_since} s after the outage"

    # ------------------------------------------------------------------------------------------- what happens

    @rule(seconds=st.sampled_from([0.02, 0.3, 4.0, 14.0, 70.0, 400.0]))
    def time_passes(self, seconds):
        self.stage.settle(seconds)

    @rule(mode=st.sampled_from(["well", "well", "limiting", "limiting", "refusing", "broken", "silent"]))
    def the_orchestrator_turns(self, mode):
        if mode in {"well", "limiting"} and self.mode not in {"well", "limiting"}:
            self.well_since = self.stage.time()
        self.mode = mode

    @rule(
        jitter_ms=st.sampled_from([0, -20_000, 7_500, 10**9]),
        full_sync=st.booleans(),
        latency=st.sampled_from([0.001, 0.3, ANSWERED_WITHIN]),
        retry_after=st.sampled_from([None, 0, 1, 30, 10**6]),
    )
    def the_orchestrator_asks_for(self, jitter_ms, full_sync, latency, retry_after):
        self.jitter_ms, self.full_sync, self.latency, self.retry_after = jitter_ms, full_sync, latency, retry_after

    @rule()
    def the_orchestrator_forgets_the_worker(self):
        self.known_there = False

    @precondition(lambda self: self.offline_at is None)
    @rule()
    def a_poll_breaks_contact(self):
        self.broken_at = self.stage.time()
        self.stage.call(self.stage.main, self.link.contact_broken)

    @precondition(lambda self: self.offline_at is None)
    @rule(status=st.sampled_from([WorkerStatus.IDLE, WorkerStatus.BUSY, WorkerStatus.DRAINING]))
    def the_state_changes(self, status):
        if status is not self.watch.value.status:
            self.changed_at = self.stage.time()
        self.stage.call(self.stage.main, self.watch.publish, replace(IDLE, status=status))

    @precondition(lambda self: self.offline_at is None)
    @rule(sure=st.sampled_from([True, False, False, False, False, False]))
    def the_state_flickers(self, sure):
        """Change it more often than heartbeats are accepted, within a few seconds."""
        for number in range(MOST_A_MINUTE + 10 if sure else 0):
            self.the_state_changes((WorkerStatus.IDLE, WorkerStatus.BUSY)[number % 2])
            self.stage.settle(FLICKERS_EVERY)

    @precondition(lambda self: self.offline_at is None)
    @rule()
    def the_worker_says_goodbye(self):
        saying = self.stage.begin(self.stage.link, self.service.announce(WorkerStatus.OFFLINE))
        self.stage.settle(40.0)
        assert saying.done()
        self.offline_at = self.stage.time()

    # ------------------------------------------------------------------------------------------- what holds

    @invariant()
    def the_lease_is_kept(self):
        if hasattr(self, "stage"):
            self.check_lease()

    @invariant()
    def a_change_is_reported(self):
        """Unless contact was lost, or heartbeats were limited, a short while ago."""
        if not hasattr(self, "stage") or self.offline_at is not None or self.mode != "well":
            return
        now = self.stage.time()
        unwell = max(self.well_since, self.broken_at, self.limited_at + 100.0) + BACK_WITHIN
        if now > unwell and now > self.changed_at + 3 * ANSWERED_WITHIN and now > self.limited_at + 320.0:
            assert self.status_there == self.watch.value.status

    def teardown(self):
        if hasattr(self, "stage"):
            self.running.cancel()
            self.stage.settle()
            self.stage.end_life()
            self.stage.drop()


@pytest.mark.timeout(600)  # a failure is made small first
def test_a_lease_is_kept_whatever_the_orchestrator_answers():
    run_machine(LeaseMachine, examples=40, steps=30)
