"""Slots, polls and what lends them, at up to three orchestrators, against a model that only counts.

The poller, the runner of tasks and the links are the worker's own; the machine answers each call.
"""

import asyncio
import json
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from avtomatika_worker import Worker, threadsafe
from avtomatika_worker.config import load_settings
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.delivery.store import Store
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.observability.telemetry import OFF
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.link_state import LinkState
from avtomatika_worker.policy.rotation import Mode, Rotation
from avtomatika_worker.tasks.poll_source import LEND_AFTER
from avtomatika_worker.tasks.poller import LOOK_AGAIN, Poller
from avtomatika_worker.worker.make_tasks import Policies, make_tasks, make_workshop
from machines.stage import Stage, Wire, encode, run_machine
from simulation.machine import NoFiles

ANSWERED_IN = 0.01
POLL_TIME = 30.0
TURNS = 2 * 3 * (LEND_AFTER + LOOK_AGAIN) + 0.1
"""Seconds after which a slot has been lent to each of three orchestrators in turn, twice: room is lent as well."""

LIMITS = {"paint": 1, "render": 2, "gpu": 2}
"""Of two skills, and of both together. Another one has none."""


class SlotsMachine(RuleBasedStateMachine):
    @initialize(
        seed=st.integers(0, 2**16), slots=st.integers(1, 4), count=st.integers(1, 3), mode=st.sampled_from([*Mode])
    )
    def begin(self, seed, slots, count, mode):
        self.stage = stage = Stage(seed)
        self.mode, self.total = mode, slots
        self.handed_out, self.working, self.runs, self.results, self.skills = {}, {}, {}, {}, {}
        self.results_hang = self.healing = False
        self.quiet_since = 0.0
        self.wires = [Wire(stage, self.on_call, self.on_timeout) for _ in range(count)]
        self.links = [self.make_link(number, wire) for number, wire in enumerate(self.wires)]
        stage.call(stage.main, self.assemble)
        for link in self.links:
            link.open()
            link.registered("1.0b17")
        self.ready = stage.begin(stage.main, self.run())
        self.retrying = stage.begin(stage.link, self.outbox.run())
        stage.settle()

    def make_link(self, number, wire):
        policy = BackoffPolicy(0.1, 2.0, 5.0)
        settings = LinkSettings(url=f"http://o{number}.test", token="t", poll_timeout=POLL_TIME, calls=policy)
        return Link(settings, "w1", wire, world=self.stage.world)

    def assemble(self):
        world = self.stage.world
        worker = Worker(worker_type="test")

        @worker.skill
        async def work(n: int) -> dict:
            return await self.do_work(n, "work")

        @worker.skill(type="gpu", max_concurrent=LIMITS["paint"])
        async def paint(n: int) -> dict:
            return await self.do_work(n, "paint")

        @worker.skill(type="gpu", max_concurrent=LIMITS["render"])
        async def render(n: int) -> dict:
            return await self.do_work(n, "render")

        environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": "http://o0.test", "WORKER_TOKEN": "t"}
        settings = load_settings(environment, max_concurrent_tasks=self.total)
        workshop = make_workshop(settings, worker._provide("w1", {}, world), OFF, world, prestart=False)
        workshop.files.close()
        self.outbox = Outbox(Store(None, world), max_age=1e6, world=world)
        self.tasks, publisher = make_tasks(
            settings,
            worker.skills,
            [],
            Policies(skill_type_limits={"gpu": LIMITS["gpu"]}),
            replace(workshop, files=NoFiles()),
            self.outbox,
            threadsafe.Watch(WorkerState()),
            OFF,
            world,
        )
        self.publisher = publisher
        rotation = Rotation(self.mode, [1.0] * len(self.links))
        self.poller = Poller(self.links, rotation, self.tasks, publisher, self.outbox, world)

    async def run(self):
        ready = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tasks.run(ready))
            await ready
            group.create_task(self.poller.run())

    async def do_work(self, n, skill):
        self.runs[n] = self.runs.get(n, 0) + 1
        self.working[n] = asyncio.get_running_loop().create_future()
        self.skills[n] = skill
        with self.stage.noting():
            by_skill = Counter(self.skills[each] for each in self.working)
            by_skill["gpu"] = by_skill["paint"] + by_skill["render"]
            assert all(by_skill[name] <= most for name, most in LIMITS.items())
            assert len(self.working) <= self.total, f"{len(self.working)} tasks run in {self.total} slots"
        if self.healing:
            self.working[n].set_result(None)
        try:
            await self.working[n]
        finally:
            del self.working[n]
        return {"n": n}

    # ------------------------------------------------------------------------------------------- the orchestrators

    def on_call(self, call):
        if call.kind == "result" and not self.results_hang:
            self.stage.main.call_later(ANSWERED_IN, self.take_result, call)

    def on_timeout(self, call):
        """Count from now on: contact breaks with it, and another orchestrator's turn may begin."""
        self.quiet_since = self.stage.time()

    def take_result(self, call):
        task_id = call.body["task_id"]
        self.results[task_id] = self.results.get(task_id, 0) + 1
        call.answer(200)

    def polls(self, number):
        return [call for call in self.wires[number].in_flight if call.kind == "poll"]

    def asked(self, call):
        return parse_qs(urlsplit(call.path).query)["available_skills"][0].split(",")

    def hand_out(self, call, number, n, skill="work"):
        self.skills.setdefault(n, skill)
        task = {"job_id": f"j{n}", "task_id": f"t{n}", "type": self.skills[n], "params": {"n": n}}
        self.handed_out[n] = number
        call.answer(200, json.loads(encode(task)))

    # ------------------------------------------------------------------------------------------- what happens

    @rule(seconds=st.sampled_from([0.002, 0.3, 0.8, 6.0, 40.0]))
    def time_passes(self, seconds):
        self.stage.settle(seconds)

    @precondition(lambda self: any(self.polls(number) for number in range(len(self.wires))))
    @rule(
        data=st.data(), how=st.sampled_from(["task", "task", "task", "again", "nothing", "429", "503", "404", "lost"])
    )
    def a_poll_is_answered(self, data, how):
        asked = [number for number in range(len(self.wires)) if self.polls(number)]
        number = data.draw(st.sampled_from(asked))
        call = data.draw(st.sampled_from(self.polls(number)))
        mine = [n for n, where in self.handed_out.items() if where == number]
        if how == "task" or (how == "again" and not mine):
            self.hand_out(call, number, len(self.handed_out), data.draw(st.sampled_from(self.asked(call))))
        elif how == "again":
            self.hand_out(call, number, data.draw(st.sampled_from(mine)))
        elif how == "nothing":
            call.answer(204)
        elif how == "lost":
            call.fail()
        else:
            call.answer(int(how), {})
        self.happened()

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def a_skill_ends(self, data):
        n = data.draw(st.sampled_from(sorted(self.working)))
        self.stage.call(self.stage.main, self.working[n].set_result, None)
        self.happened()

    @rule(data=st.data())
    def contact_breaks(self, data):
        link = data.draw(st.sampled_from(self.links))
        self.stage.call(self.stage.link, link.contact_broken)
        self.happened()

    @rule()
    def all_are_registered_at(self):
        for link in self.links:
            if link.broken.is_open:
                self.stage.call(self.stage.link, link.registered, "1.0b17")
        self.happened()

    @rule(data=st.data())
    def fewer_or_more_slots_are_usable(self, data):
        self.limit(data.draw(st.integers(1, self.total)))

    def limit(self, usable):
        self.stage.call(self.stage.main, self.tasks.slots.limit, usable)
        self.stage.call(self.stage.main, self.tasks.slots_freed)
        self.happened()

    @rule(hang=st.booleans())
    def results_hang_or_do_not(self, hang):
        self.results_hang = hang
        if not hang:
            for wire in self.wires:
                for call in wire.in_flight:
                    if call.kind == "result":
                        self.take_result(call)
        self.happened()

    def happened(self):
        self.stage.settle()
        self.quiet_since = self.stage.time()

    # ------------------------------------------------------------------------------------------- what holds

    @invariant()
    def the_poller_goes_on(self):
        assert not self.ready.done()

    @invariant()
    def slots_are_counted(self):
        slots, sources = self.tasks.slots, self.poller._sources
        assert min(slots.running, slots.polling) >= 0
        assert slots.running + slots.polling <= slots.total
        assert slots.polling == sum(not poll.lent for source in sources for poll in source.polls)
        assert len(self.working) <= slots.running
        for number, source in enumerate(sources):
            assert len(self.polls(number)) == len(source.polls) <= source.most

    @invariant()
    def nobody_waits_for_a_slot_that_is_free(self):
        if self.tasks._in_line:
            assert self.tasks.slots.free == 0

    @invariant()
    def everybody_is_asked(self):
        """With a slot that runs no task, each orchestrator that may have tasks is asked for all that have room."""
        now, slots = self.stage.time(), self.tasks.slots
        if now < self.quiet_since + TURNS or slots.running >= slots.usable or self.tasks._in_line:
            return
        sources = self.poller._sources
        if self.mode is Mode.FAILOVER:
            reachable = [source for source in sources if source.link.reachable]
            sources = (reachable or sources)[:1]
        for source in sources:
            paused = source.not_before > now - TURNS or len(source.polls) >= source.most
            if source.link.state is LinkState.REGISTERED and not paused:
                unasked = source.unasked(self.publisher.startable_skills, now - TURNS)
                assert not unasked, f"{source.link.url} is not asked for {unasked}: {slots.usable} slots are usable"

    def teardown(self):
        if not hasattr(self, "stage"):
            return
        try:
            self.all_tasks_run_once()
        finally:
            self.ready.cancel()
            self.retrying.cancel()
            self.stage.settle()
            self.stage.end_life()
            self.stage.drop()

    def all_tasks_run_once(self):
        """Let everything end: each task that was handed out has run, and has one result."""
        self.healing = True
        self.results_hang_or_do_not(False)
        for done in list(self.working.values()):
            self.stage.call(self.stage.main, done.set_result, None)
        self.stage.settle(60.0)
        assert not self.working
        assert self.tasks.slots.running == 0
        assert set(self.runs) == set(self.handed_out)
        assert {f"t{n}" for n in self.handed_out} == set(self.results)
        assert set(self.runs.values()) <= {1}


def test_a_waiting_poll_does_not_lend_a_slot_that_may_not_be_taken():
    """The poller failed when slots were held back from two orchestrators while one had a task, the other a poll."""
    machine = SlotsMachine()
    machine.begin(seed=0, slots=2, count=2, mode=Mode.WATERFALL)
    machine.hand_out(machine.polls(0)[0], 0, 0)
    machine.happened()
    machine.limit(1)
    machine.time_passes(seconds=0.8)
    machine.the_poller_goes_on()
    machine.slots_are_counted()
    machine.teardown()


def test_orchestrators_are_asked_in_turn_while_polls_hold_more_slots_than_may_be_taken():
    """After a break, one was not asked before the others had answered polls from before slots were held back."""
    machine = SlotsMachine()
    machine.begin(seed=0, slots=3, count=3, mode=Mode.WATERFALL)
    machine.limit(1)
    machine.stage.call(machine.stage.link, machine.links[0].contact_broken)
    machine.all_are_registered_at()
    machine.time_passes(seconds=6.0)
    machine.everybody_is_asked()
    machine.slots_are_counted()
    machine.teardown()


@pytest.mark.timeout(600)  # a failure is made small first
def test_slots_are_never_overbooked_and_nobody_starves():
    run_machine(SlotsMachine, examples=30, steps=40)
