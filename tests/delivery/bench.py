"""An outbox in virtual time: a test says how the orchestrator answers, and looks at what has happened."""

import dataclasses
import random

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.handover import Handover
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.delivery.store import Store
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.observability.metrics import Recorder
from avtomatika_worker.observability.telemetry import Telemetry
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.policy.call_budget import UNLIMITED
from avtomatika_worker.protocol.messages import Event, Task, TaskResult
from avtomatika_worker.protocol.work import work_key
from machines.stage import Stage, Wire
from simulation.disk import Disk, DiskFile

URL = "http://o.test"
DELAY = 4.0
"""Seconds before the second attempt; each further one waits for twice as long."""

GOOD, BROKEN, NEVER = None, object(), object()
"""Answers: as well as can be; the connection breaks; there is none."""

IGNORED = {"status": "ignored", "reason": "job_finished"}
STALE = {"status": "ignored", "reason": "stale_task"}
REFUSED = (413, {"error": "too large"})
FORBIDDEN = (403, {"error": "replay"})

LABEL = "o.test"
ATTEMPTS = "worker.results.attempts.total"


class Even(random.Random):
    """No chance: always the middle."""

    def random(self):
        return 0.5


class Counts(Recorder):
    """What is counted, and the times."""

    def __init__(self):
        self.counted = []
        self.times = []

    def count(self, metric, *labels, by=1):
        self.counted.append((metric.name, *labels))

    def time(self, metric, seconds, *labels):
        self.times.append((metric.name, seconds, *labels))


class Bench:
    """``answers`` are taken in turn: a status of failure, a body for a 200, a pair of both,
    or one of `GOOD`, `BROKEN` and `NEVER`; then all is well.

    ``durable``: there is a disk. The outbox's settings are those of its class.
    """

    def __init__(self, *, durable=True, version="1.0b17", registered=True, max_age=1e6, disk=None, **settings):
        self.stage = Stage()
        self.world = dataclasses.replace(self.stage.world, random=Even())
        self.begun = []
        self.expected_to_fail = []
        self.calls = []
        self.answers = []
        self.counts = Counts()
        self.removed = []
        self.wires = {}
        self.link = self.make_link(URL)
        self.disk = disk or Disk(self.stage.schedule)
        self.disk.schedule = self.stage.schedule
        self.file = DiskFile(self.disk, self.stage.link) if durable else None
        self.store = Store(self.file, self.world, remove_checkpoint=self._remove_checkpoint)
        self.outbox = Outbox(self.store, max_age=max_age, world=self.world, **settings)
        self.outbox.open([self.link], required=True)
        self.retries = self.stage.begin(self.stage.link, self.outbox.run())
        self.version = version
        if registered:
            self.register()
        self.stage.begin(self.stage.main, self._make_handover())

    def make_link(self, url):
        wire = self.wires[url] = Wire(self.stage, self._answer)
        calls = BackoffPolicy(2 * DELAY, 1e5, 61.0)
        settings = LinkSettings(url, "token", calls=calls, rate_limit=UNLIMITED)
        link = Link(settings, "w1", wire, Telemetry(metrics=self.counts), self.world)
        link.open()
        return link

    def register(self):
        self.link.registered(self.version)
        self.settle()

    async def _make_handover(self):
        self.handover = Handover(self.outbox)

    async def _remove_checkpoint(self, key):
        self.removed.append((key, len(self.disk.rows)))

    def _answer(self, call):
        self.calls.append(call)
        answer = self.answers.pop(0) if self.answers else GOOD
        if isinstance(answer, int):
            answer = (answer, {"error": "down"})
        if answer is BROKEN:
            call.fail()
        elif answer is not NEVER:
            status, body = answer if isinstance(answer, tuple) else (200, answer)
            call.answer(status, body)

    # ------------------------------------------------------------------------------------------- what a test does

    def result(self, task_id="t1", **more):
        ids = {"job_id": "j1", "task_id": task_id, "worker_id": "w1", "origin_worker_id": "w1"}
        return TaskResult(**{**ids, "status": "success", "data": {"n": 1}, **more})

    def event(self, number=1, task_id="t1", **more):
        ids = {"event_id": f"e{number}", "worker_id": "w1", "origin_worker_id": "w1", "target_job_id": "j1"}
        return Event(**{**ids, "event_type": "note", "payload": {"n": number}, "origin_task_id": task_id, **more})

    def send(self, message, *answers, link=None, **how):
        """Deliver a message, answered so; return its delivery."""
        self.answers.extend(answers)
        delivery = delivery_of(link or self.link, message)
        self.outbox.works.enter(delivery)
        self.begin(self.outbox.deliver(delivery, **how))
        return delivery

    def begin(self, coroutine):
        """Start something on the main loop, and let all happen that takes no time."""
        task = self.stage.begin(self.stage.main, coroutine)
        self.settle()
        self.begun.append(task)
        return task

    def settle(self, seconds=0.01):
        self.stage.settle(seconds)

    def end(self):
        """End the process. Nothing may have failed that a test has not looked at."""
        self.retries.cancel()
        self.settle()
        failed = [each for each in self.begun if each.done() and not each.cancelled() and each.exception()]
        self.stage.end_life()
        self.stage.drop()
        assert failed == self.expected_to_fail

    # ------------------------------------------------------------------------------------------- what a test sees

    def sent(self, kind="result"):
        return [call.body for call in self.calls if call.kind == kind]

    def at(self):
        """Return when the calls were made."""
        return [round(call.at, 1) for call in self.calls]

    @property
    def on_disk(self):
        return [(each.kind.value, each.task_id) for _, each in sorted(self.disk.rows.items())]


def said(caplog, *, debug=False):
    """Return the lines of the log with their levels and actions."""
    return [
        (each.levelname, each.action, each.getMessage())
        for each in caplog.records
        if debug or each.levelname != "DEBUG"
    ]


def outcomes(bench):
    """Return the kinds and outcomes of the attempts that were counted."""
    assert {each[:2] for each in bench.counts.counted} <= {(ATTEMPTS, LABEL)}
    return [each[2:] for each in bench.counts.counted]


def work():
    return work_key(URL, Task(job_id="j1", task_id="task-1", type="resize"))


def hand_out(bench, task_id):
    return bench.outbox.works.add(work(), Task(job_id="j1", task_id=task_id, type="resize"), newest=True)
