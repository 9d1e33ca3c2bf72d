"""Runs a scenario: a worker's machine, a fleet of embedded orchestrators, and what goes wrong between them."""

import asyncio
import gc
import logging
import random
import sys
import warnings
from dataclasses import dataclass

from aiohttp import web_app

from avtomatika_worker.devserver import EmbeddedOrchestrator
from simulation import invariants
from simulation.history import History
from simulation.machine import START, Machine
from simulation.network import a_network
from simulation.scenario import SPAN
from simulation.schedule import Schedule, SimLoop, StuckError

SETTLES_WITHIN = 500.0
"""Seconds after the last fault in which every job has come to its end: leases, timeouts and pauses are over by then."""

STOPS_WITHIN = 60.0


class Orchestrator:
    """An embedded orchestrator on a machine of its own, which the network knows as ``host``."""

    def __init__(self, schedule, network, number, version, options):
        self.name = f"o{number}"
        self.host = f"127.0.0.{11 + number}"
        self.address = f"http://{self.host}"
        self.token = f"token-{number}"
        self.loop = SimLoop(schedule, self.name, network, self.host)
        self._network = network
        self._server = None
        self.embedded = EmbeddedOrchestrator(
            version=version,
            token=self.token,
            poll_time=30.0,
            lease=60.0,
            clock=lambda: START + schedule.now,
            **{"task_timeout": 120.0, **options},
        )

    def start(self):
        return self.loop.create_task(self.embedded.start(), context=None)

    def crash(self):
        """End as a process does: connections break, nobody listens, what was in memory of calls is gone."""
        self._server = self._network.servers.pop(self.host, self._server)
        self._network.reset(self.host)

    def come_back(self, forgets):
        if forgets:
            self.loop.call_soon(self.embedded.forget_workers)
        if self._server is not None:
            self._network.servers[self.host] = self._server


class Simulation:
    """One run of a scenario."""

    def __init__(self, scenario, network, schedule):
        self.scenario = scenario
        self.schedule = schedule
        self.network = network
        self.history = History(lambda: schedule.now)
        self.loop = SimLoop(schedule, "the world", network, "world")
        self.orchestrators = [
            Orchestrator(schedule, network, number, version, scenario.options)
            for number, version in enumerate(scenario.versions)
        ]
        chance = random.Random(f"worker {scenario.seed}")
        self.machine = Machine(schedule, network, self.history, self.orchestrators, scenario.settings, chance)
        self.records = {}
        self.starts_again = 0

    def later(self, seconds, call, *args):
        self.loop.call_later(seconds, call, *args)

    def start_again(self):
        if self.machine.ended:
            self.machine.start()

    def start_when_ended(self):
        if self.machine.ended:
            self.later(0.5, self.start_again)
        else:
            self.later(0.1, self.start_when_ended)

    def run(self):
        """Let everything happen, and check the outcome of it."""
        starting = [each.start() for each in self.orchestrators]
        self._go_on(lambda: all(each.done() for each in starting), 5.0)
        self.machine.start()
        for job in self.scenario.jobs:
            self.loop.call_later(job.at, self._submit, job)
        for fault in self.scenario.faults:
            self.loop.call_later(fault.at, self._strike, fault)
        self._go_on(lambda: False, SPAN)
        self._heal()
        # What is handed out again while it runs may be done as often as an orchestrator tries.
        work = self.scenario.work * (4 if self.scenario.options.get("reassign_running") else 1)
        settled = self._go_on(self._is_settled, self.schedule.now + SETTLES_WITHIN + work)
        self.history.note("everything has settled" if settled else "VIOLATION: it has not settled")
        self.machine.request_shutdown()
        self._go_on(lambda: self.machine.ended, self.schedule.now + STOPS_WITHIN)
        invariants.check(self, settled)
        self.history.closed = True
        stopping = [each.loop.create_task(each.embedded.stop()) for each in self.orchestrators]
        self._go_on(lambda: all(each.done() for each in stopping), self.schedule.now + 60.0)

    def _go_on(self, done, until):
        return self.schedule.run(done, until)

    def _submit(self, job):
        orchestrator = self.orchestrators[job.orchestrator]

        def submit():
            deadline = None if job.deadline is None else orchestrator.embedded.now() + job.deadline
            job_id = f"job-{job.params['n']}"
            record = orchestrator.embedded.submit(job.skill, job.params, deadline=deadline, job_id=job_id)
            self.records[job] = record
            self.history.note(f"{orchestrator.name} has {record.job_id}: {job.skill} {job.params}")
            if job.cancelled_after is not None:
                orchestrator.loop.call_later(job.cancelled_after, cancel, record)

        def cancel(record):
            if orchestrator.embedded.cancel(record.job_id):
                self.history.cancelled[record.job_id] = self.schedule.now
                self.history.note(f"{orchestrator.name} cancels {record.job_id}")

        orchestrator.loop.call_soon(submit)

    def _strike(self, fault):
        self.history.note(f"FAULT: {fault}")
        fault.strike(self)

    def _heal(self):
        """End what is wrong, so that whatever is wrong from now on is the worker's fault."""
        self.history.note("all that was wrong ends")
        self.network.slow.clear()
        self.network.lose_replies.clear()
        self.machine.disk.full = self.machine.disk.hangs = False
        self.history.on_end = None
        self.machine.spare()
        for each in self.orchestrators:
            self.network.heal(each.host)
            each.come_back(False)
            each.loop.call_soon(each.embedded.clear_faults)

    def _is_settled(self):
        return (
            len(self.records) == len(self.scenario.jobs)
            and all(each.state.final for each in self.records.values())
            and not self.machine.ended
            and self.machine.engine is not None
            and all(each.known.is_open for each in self.machine.engine.links)
            and self.machine.engine.outbox.depth == 0
            and not len(self.machine.engine.tasks.running)
        )


@dataclass
class Outcome:
    """The outcome of a run."""

    scenario: object
    violations: list
    entries: list
    steps: int
    seconds: float
    lives: int

    @property
    def story(self):
        return "\n".join(map(str, self.entries))


def simulate(scenario):
    """Run a scenario."""
    try:
        return _outcome(scenario)
    finally:
        _drop_what_was_killed()


def _outcome(scenario):
    schedule = Schedule(f"schedule {scenario.seed}")
    root, level = logging.getLogger("avtomatika_worker"), logging.getLogger("avtomatika_worker").level
    with a_network(schedule) as network:
        simulation = None
        try:
            asyncio._set_running_loop(None)
            simulation = Simulation(scenario, network, schedule)
            root.addHandler(simulation.machine._watching)
            root.setLevel(logging.INFO)
            try:
                simulation.run()
            except StuckError as error:
                simulation.history.violated(f"stuck: {error}")
        finally:
            root.setLevel(level)
            if simulation is not None:
                root.removeHandler(simulation.machine._watching)
                simulation.history.closed = True
                _bury(network)
        history = simulation.history
        return Outcome(
            scenario, history.violations, history.entries, schedule.steps, schedule.now, simulation.machine.life
        )


def _drop_what_was_killed():
    """Free the memory. A coroutine that is dropped runs its "finally", and here that is nobody's fault."""
    hook, disabled = sys.unraisablehook, logging.root.manager.disable
    sys.unraisablehook = lambda _: None
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            web_app._cached_build_middleware.cache_clear()  # of aiohttp: it holds the last 1,024 servers
            while gc.collect():  # what is dropped leaves more
                pass
    finally:
        logging.disable(disabled)
        sys.unraisablehook = hook


def _bury(network):
    for loop in network.loops:
        loop.kill()
        for task in loop.tasks:
            task._log_destroy_pending = False
