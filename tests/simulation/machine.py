"""The machine that a worker runs on: its two event loops, its clocks and its disk. A worker on it may be killed."""

import asyncio
import contextlib
import contextvars
import json
import logging

import msgspec

from avtomatika_worker import TaskContext, TransientError, Worker, threadsafe
from avtomatika_worker.config import load_settings
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.delivery.store import Store
from avtomatika_worker.link_thread import LinkThread
from avtomatika_worker.monitoring.usage import UsageMonitor
from avtomatika_worker.monitoring.watchdog import Pulse, Watchdog
from avtomatika_worker.observability.host import HostFacts
from avtomatika_worker.observability.telemetry import OFF
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.rotation import Rotation
from avtomatika_worker.supervisor import Engine, MainService, Part, Supervisor
from avtomatika_worker.tasks.poller import Poller
from avtomatika_worker.worker.announcement import announce
from avtomatika_worker.worker.make_links import make_links
from avtomatika_worker.worker.make_tasks import Policies, make_tasks, make_workshop
from avtomatika_worker.world import World
from simulation.disk import Disk, DiskFile
from simulation.schedule import SimLoop

START = 1_800_000_000.0
"""Unix time at the start of a run."""

LIFE = contextvars.ContextVar("life")
FAULTS_OF_OURS = {"link_failed", "part_failed", "poller_stalled", "task_malformed", "part_cancelled"}
"""Log records that say that the worker has a bug."""


GIVEN_UP = {"result_refused", "result_expired", "result_lost"}
"""Log records that say that an orchestrator will not have a result."""


class LinkLoop(LinkThread):
    """The link thread, as a loop that its main loop takes turns with."""

    def __init__(self, services, _, loop):
        super().__init__(services, lambda: loop)
        self._its_loop = loop

    def start(self):
        self._loop = self._its_loop
        task = self._its_loop.create_task(self._serve(), name="link thread")
        task.add_done_callback(self._has_ended)

    def _has_ended(self, task):
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()
        self.ended.set_result(None)

    async def stop(self):
        if self._loop is None:
            return
        if self._main is not None and not self.ended.done():
            self._loop.call_soon_threadsafe(self._main.cancel)
        await asyncio.wait({asyncio.wrap_future(self.ended)})


class NoFiles:
    """What a worker has of files whose skills use none."""

    async def clean_up(self):
        pass

    def for_task(self, *_):
        raise AssertionError("no skill of the simulation uses files")


class Watching(logging.Handler):
    """Notes what a worker logs, and takes what says that it has a bug for a violation."""

    def __init__(self, history):
        super().__init__(logging.INFO)
        self._history = history

    def emit(self, record):
        if LIFE.get(None) is None:
            return
        action = getattr(record, "action", "")
        self._history.note(f"[{LIFE.get()}] {record.levelname} {action}: {record.getMessage()}")
        if action == "task_lingers":
            self._history.lingering.append((self._history.clock(), record.getMessage()))
        if action == "task_adopted":
            self._history.adopted[record.task_id] = record.job_id
        if action in GIVEN_UP:
            self._history.given_up.append(record.getMessage())
        if action in FAULTS_OF_OURS:
            cause = record.exc_info[1] if record.exc_info else None
            self._history.violated(f"{action}: {record.getMessage()} {cause!r}")


def make_worker(history, life):
    """Return a worker whose skills note when they begin and end."""
    worker = Worker(worker_type="sim")

    @contextlib.contextmanager
    def noted(ctx):
        run = history.began(life, ctx)
        how = "ended"
        try:
            yield
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            history.ended(run, how)

    @worker.skill
    async def quick(n: int, at: str, ctx: TaskContext) -> dict:
        with noted(ctx):
            return {"n": n}

    @worker.skill
    async def slow(n: int, at: str, seconds: float, ctx: TaskContext) -> dict:
        with noted(ctx):
            await asyncio.sleep(seconds)
            return {"n": n}

    @worker.skill
    async def chatty(n: int, at: str, events: int, seconds: float, ctx: TaskContext) -> dict:
        with noted(ctx):
            run = len(history.runs)
            for number in range(events):
                await ctx.send_event("step", {"number": number, "run": run})
                await ctx.send_progress(number / events)
                await asyncio.sleep(seconds)
            await ctx.send_event("step", {"number": events, "run": run})
            return {"n": n}

    @worker.skill
    async def flaky(n: int, at: str, failures: int, ctx: TaskContext) -> dict:
        with noted(ctx):
            await asyncio.sleep(0.01)
            if history.times(ctx.job_id) <= failures:
                raise TransientError("not yet")
            return {"n": n}

    @worker.skill
    async def stubborn(n: int, at: str, seconds: float, ctx: TaskContext) -> dict:
        with noted(ctx):
            until = asyncio.get_running_loop().time() + seconds
            while (left := until - asyncio.get_running_loop().time()) > 0:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(left)
            return {"n": n}

    return worker


class Machine:
    """Runs a worker for ``orchestrators``, one life after the other. ``settings`` are the worker's."""

    def __init__(self, schedule, network, history, orchestrators, settings, random):
        self.schedule = schedule
        self.network = network
        self.history = history
        self.disk = Disk(schedule)
        self.wall_ahead = 0.0
        self.life = 0
        self.dead = []
        self.supervisor = None
        self.engine = None
        self.ended = True
        self.killed = False
        self._orchestrators = orchestrators
        self._settings = dict(settings)
        self._random = random
        self._watching = Watching(history)

    def start(self):
        """Begin another life."""
        self.life += 1
        self.ended = self.killed = False
        life, host = self.life, "worker"
        self.main = SimLoop(self.schedule, f"main {life}", self.network, host)
        self.link = SimLoop(self.schedule, f"link {life}", self.network, host)
        self.writer = SimLoop(self.schedule, f"store {life}", self.network, host)
        self.supervisor = self.engine = None
        self.history.lives.append(self.schedule.now)
        self.history.note(f"the worker starts (life {life})")
        context = contextvars.Context()
        context.run(LIFE.set, life)
        task = self.main.create_task(self._run(life), name=f"worker {life}", context=context)
        task.add_done_callback(lambda done: self._has_ended(life, done))

    def _has_ended(self, life, task):
        self.ended = True
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self.history.violated(f"life {life} ended with {error!r}")
        else:
            self.history.note(f"the worker has stopped (life {life})")

    def kill(self):
        """Let everything that the worker does end between two steps of it, as a SIGKILL would."""
        if self.ended:
            return
        self.history.note(f"the worker is killed (life {self.life})")
        self._bury()
        self.ended = self.killed = True

    def spare(self):
        """Let a kill that has not come yet not come."""
        self.main.count_down(0, None)

    def _bury(self):
        loops = (self.main, self.link, self.writer)
        for loop in loops:
            loop.kill()
        for loop in loops:
            self.network.process_died(loop)
        self.dead += loops
        for run in self.history.runs:
            if run.ended is None and run.life == self.life:
                run.ended, run.how = self.schedule.now, "killed"

    def request_shutdown(self):
        if self.supervisor is not None:
            self.main.call_soon(self.supervisor.request_shutdown)

    def world(self):
        now = self.main.time
        return World(now, now, lambda: START + now() + self.wall_ahead, self._random)

    async def _run(self, life):
        supervisor = self._assemble(life)
        self.supervisor = supervisor
        await supervisor.run()

    def _assemble(self, life):
        world, worker = self.world(), make_worker(self.history, life)
        configured = [
            {"url": each.address, "priority": number, "token": each.token}
            for number, each in enumerate(self._orchestrators)
        ]
        environment = {"WORKER_ID": "w1", "ORCHESTRATORS_CONFIG": json.dumps(configured)}
        settings = load_settings(environment, **self._settings)
        store = DiskFile(self.disk, self.writer)
        outbox = Outbox(Store(store, world), max_age=settings.result_max_age, store_first=True, world=world)
        state, policies = threadsafe.Watch(WorkerState()), Policies()
        plan = worker._provide("w1", {}, world)
        workshop = make_workshop(settings, plan, OFF, world, prestart=False)
        workshop.files.close()
        workshop = msgspec.structs.replace(workshop, files=NoFiles())
        tasks, publisher = make_tasks(settings, worker.skills, [], policies, workshop, outbox, state, OFF, world)
        announcement = announce(
            settings, worker.skills, {}, HostFacts(hostname="machine", ip_address="10.0.0.1", cpu_cores=4, ram_gb=8.0)
        )
        to_main, usage = threadsafe.CallQueue(self.main), UsageMonitor(dict, world)
        links = make_links(settings, announcement, state, to_main, tasks, usage, OFF, policies.handlers, world)
        rotation = Rotation(settings.multi_orchestrator_mode, [1.0] * len(links.links))
        poller = Poller(links.links, rotation, tasks, publisher, outbox, world)
        pulse = Pulse(poller.is_due, world)
        limit = settings.loop_blocked_limit
        skills = tasks.running.skills
        watchdog = Watchdog(pulse, pulse.poll_is_due, skills, blocked_limit=limit, clock=world.monotonic)

        async def close_outbox():
            store.at_once = True
            outbox.close()

        self.engine = Engine(links.links, links.heartbeats, poller, tasks, publisher, outbox, workshop.processes, None)
        self._watch_slots(publisher, tasks)
        return Supervisor(
            self.engine,
            [
                Part("the outbox", lambda: outbox.open(links.links, required=False), close_outbox, limit=10.0),
                *(Part(f"the link to {each.label}", each.open, each.close) for each in links.links),
            ],
            [MainService("the poller", poller.run), MainService("the pulse", pulse.run)],
            [*links.services, outbox.run, watchdog.run],
            shutdown_timeout=settings.shutdown_timeout,
            loop_factory=lambda: self.link,
            make_link_thread=lambda services, factory: LinkLoop(services, factory, self.link),
        )

    def _watch_slots(self, publisher, tasks):
        slots = tasks.slots

        def look():
            taken = (slots.running, slots.polling, slots.free)
            if min(taken) < 0 or slots.running + slots.polling > slots.total:
                self.history.violated(f"slots: running, polling, free are {taken} of {slots.total}")

        publisher.on_change(look)
