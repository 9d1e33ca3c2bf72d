"""The outbox and its file, whatever orchestrators answer and whenever the process dies, against a simple model.

The model knows what each task has sent, and what the orchestrator and the disk have seen.
"""

import asyncio
import shutil
import tempfile
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from avtomatika_worker.delivery.handover import Handover
from avtomatika_worker.delivery.outbox import FLUSH_TIMEOUT, Outbox
from avtomatika_worker.delivery.sqlite_store import SqliteStore
from avtomatika_worker.delivery.store import Store
from avtomatika_worker.errors import StoreError
from avtomatika_worker.execution.payloads import NO_FACTS
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.protocol.messages import Task, TaskResult
from avtomatika_worker.tasks.events import TaskEvents
from machines.stage import Stage, Wire, run_machine

URL = "http://o.test"
FINAL = {"accepted", "ignored", "refused"}
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # what is synced there costs nothing
SOON = 1.0
"""Seconds in which what needs no network is done."""


class SlowDisk(SqliteStore):
    """The real file, written in virtual time: the process may die before a write, and between two.

    ``hangs``: nothing is written until it does no more.
    """

    def __init__(self, directory, stage):
        super().__init__(directory, "w1")
        self._stage = stage
        self._loop = stage.link
        self._queue = []
        self._ending = False
        self.hangs = False

    def put(self, message):
        done = Future()

        def write():
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(super(SlowDisk, self).put(message).result())
            except StoreError as error:
                done.set_exception(error)

        self._later(write)
        return done

    def forget(self, row):
        self._later(lambda: super(SlowDisk, self).forget(row))

    def probe(self):
        done = Future()
        self._later(lambda: done.set_result(True))
        return done

    def check(self):
        self.work_off()
        return True

    def close(self):
        self._ending = True
        self.work_off()
        super().close()

    def fill(self, is_full):
        """Leave no room for another page, or as much as there may be."""
        pages = self._connection.execute("PRAGMA page_count").fetchone()[0] if is_full else 2**30
        self._connection.execute(f"PRAGMA max_page_count={pages}").fetchall()

    def rows(self):
        """Return what is on disk now: kind, task and message of each row."""
        super().probe().result()
        return self._connection.execute("SELECT kind, task_id, message FROM waiting ORDER BY id").fetchall()

    def end_at_once(self):
        """Write what comes from now on at once: the loops have ended."""
        self._ending = True
        self.work_off()

    def work_off(self, most=None):
        if self.hangs and not self._ending:
            return
        while self._queue and most != 0:
            self._queue.pop(0)()
            most = None if most is None else most - 1

    def _later(self, work):
        self._queue.append(work)
        if self._ending:
            self.work_off()
        else:
            self._loop.call_later(0.001 + 0.01 * self._stage.random.random(), self.work_off, 1)


@dataclass
class Known:
    """What the model knows of a task: its ``events`` are numbers, ``left`` those that still have to arrive."""

    task: Task
    events: TaskEvents
    emitted: int = 0
    left: set = field(default_factory=set)
    seen: list = field(default_factory=list)
    finished_at: float | None = None
    promised: bool = False
    answers: list = field(default_factory=list)
    settled_at: float | None = None
    stored: bool = False


class OutboxMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**16), store_first=st.booleans())
    def begin(self, seed, store_first):
        self.stage = Stage(seed)
        self.store_first = store_first
        self.tasks = {}
        self.running = []
        self.home = Path(tempfile.mkdtemp(prefix="outbox", dir=IN_MEMORY))
        self.lives = 0
        self.healing = False
        self.limited_until = -1.0
        self.live()

    def live(self):
        """Start the process, on the file that the last one left."""
        stage, self.lives = self.stage, self.lives + 1
        self.born = stage.time()
        self.full = self.hung = self.ill = False
        calls = BackoffPolicy(0.5, 4.0, 3.0)
        self.wire = Wire(stage, self.on_call)
        self.link = Link(LinkSettings(url=URL, token="t", calls=calls), "w1", self.wire, world=stage.world)
        self.link.open()
        self.disk = SlowDisk(self.home / str(self.lives), stage)
        self.outbox = Outbox(
            Store(self.disk, stage.world), max_age=1e6, store_first=self.store_first, world=stage.world
        )
        self.outbox.open([self.link], required=True)
        stage.begin(stage.main, self.hold_group())
        self.retries = stage.begin(stage.link, self.outbox.run())
        self.link.registered("1.0b17")
        stage.settle()

    async def hold_group(self):
        self.handover = Handover(self.outbox)
        async with asyncio.TaskGroup() as self.group:
            await asyncio.Event().wait()

    # ------------------------------------------------------------------------------------------- what happens

    @rule(seconds=st.sampled_from([0.002, 0.05, 0.6, 6.0, 30.0]))
    def time_passes(self, seconds):
        self.stage.settle(seconds)

    @precondition(lambda self: len(self.tasks) < 4)
    @rule()
    def a_task_begins(self):
        number = len(self.tasks)
        task = Task(job_id=f"j{number}", task_id=f"t{number}", type="echo")
        stage = self.stage
        events = stage.call(
            stage.main,
            lambda: TaskEvents(self.link, task, stage.main, self.group, self.outbox, progress_interval=1.0),
        )
        self.tasks[task.task_id] = Known(task, events)
        self.running.append(task.task_id)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), count=st.integers(1, 3))
    def a_task_sends_events(self, data, count):
        known = self.tasks[data.draw(st.sampled_from(self.running))]
        for number in range(known.emitted, known.emitted + count):
            known.left.add(number)
            payload = {"number": number, "text": "x" * 3000}
            self.stage.call(self.stage.main, known.events.event, "note", payload, NO_FACTS)
        known.emitted += count

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_task_ends(self, data):
        known = self.tasks[data.draw(st.sampled_from(self.running))]
        task = known.task
        self.running.remove(task.task_id)
        result = TaskResult(
            job_id=task.job_id,
            task_id=task.task_id,
            worker_id="w1",
            origin_worker_id="w1",
            status="success",
            data={"text": "x" * 3000},
        )
        known.finished_at = self.stage.time()
        known.promised = True
        self.stage.begin(self.stage.main, self.deliver(result, known.events.close))

    async def deliver(self, result, close):
        await self.handover.deliver(self.link, result, free=None, before=close)

    @precondition(lambda self: self.wire.in_flight)
    @rule(
        data=st.data(),
        how=st.sampled_from(["well", "well", "well", "lost", "unreached", "503", "429", "413", "ignored"]),
    )
    def the_orchestrator_answers(self, data, how):
        call = data.draw(st.sampled_from(range(len(self.wire.in_flight))))
        self.answer(self.wire.in_flight[call], how)
        self.stage.settle()

    @rule(full=st.booleans())
    def the_disk_fills_or_has_room(self, full):
        self.full = full
        self.ill = self.ill or full
        self.disk.fill(full)

    @precondition(lambda self: not self.hung)
    @rule()
    def the_disk_hangs(self):
        self.disk.hangs = self.hung = self.ill = True

    @precondition(lambda self: self.hung)
    @rule()
    def the_disk_answers_again(self):
        self.disk.hangs = self.hung = False
        self.disk.work_off()
        self.stage.settle()

    @rule()
    def the_process_is_killed(self):
        self.stage.end_life()
        rows = self.disk.rows()
        shutil.copytree(self.home / str(self.lives), self.home / str(self.lives + 1))
        SqliteStore.close(self.disk)
        on_disk = {task_id for kind, task_id, _ in rows if kind == "result"}
        for task_id, known in self.tasks.items():
            known.promised = known.promised and task_id in on_disk
            events = [message for kind, each, message in rows if kind == "event" and each == task_id]
            known.left &= {number_of(message) for message in events}
        self.running.clear()
        self.stage.drop()
        self.stage.begin_life()
        self.live()

    @precondition(lambda self: not self.hung and not self.full)
    @rule()
    def the_process_shuts_down(self):
        """As the supervisor does it: what still runs is dropped, what has ended is delivered or stored."""
        for task_id in self.running:
            self.tasks[task_id].left.clear()  # its events may be lost with it
        self.running.clear()
        self.outbox.stop_sending()
        for loop in (self.stage.link, self.stage.main):
            for task in loop.tasks:
                task.cancel()
            self.stage.settle()
        self.disk.end_at_once()
        self.outbox.close()
        assert self.outbox.lost == 0
        self.stage.end_life()
        self.stage.drop()
        shutil.copytree(self.home / str(self.lives), self.home / str(self.lives + 1))
        self.stage.begin_life()
        self.live()

    # ------------------------------------------------------------------------------------------- the orchestrator

    def on_call(self, call):
        known = self.tasks[call.body.get("task_id") or call.body["origin_task_id"]]
        if call.kind == "result":
            since = max(known.finished_at, self.born)
            if known.left and not known.answers and self.stage.time() > self.limited_until:
                late = self.stage.time() - since
                assert late >= FLUSH_TIMEOUT - 0.01, f"the result overtakes events {known.left} after {late} s"
            if self.store_first and not self.ill:
                assert ("result", call.body["task_id"]) in {row[:2] for row in self.disk.rows()}
        if self.healing:
            self.answer(call, "well")

    def answer(self, call, how):
        known = self.tasks[call.body.get("task_id") or call.body["origin_task_id"]]
        if how in {"well", "lost", "ignored"}:
            (self.take_result if call.kind == "result" else self.take_event)(known, call, how)
        elif how == "unreached":
            call.fail()
        elif how == "413":
            if call.kind == "event":
                known.left.discard(call.body["payload"]["number"])
            else:
                known.answers.append("refused")
            call.answer(413, {"error": "too large"})
        else:
            if how == "429":
                self.limited_until = self.stage.time() + 70.0  # the silence after which it counts again
            call.answer(int(how), {"error": "no"})

    def take_event(self, known, call, how):
        number = call.body["payload"]["number"]
        if number not in known.seen:
            assert not known.seen or number > known.seen[-1], f"event {number} came after {known.seen}"
            known.seen.append(number)
        known.left.discard(number)
        call.fail() if how == "lost" else call.answer(200)

    def take_result(self, known, call, how):
        is_first = "accepted" not in known.answers
        ignored = how == "ignored" or not is_first
        known.answers.append("ignored" if ignored else "accepted")
        if how == "lost":
            call.fail()
            return
        known.settled_at = self.stage.time()
        call.answer(200, {"status": "ignored", "reason": "job_finished"} if ignored else {"status": "accepted"})

    # ------------------------------------------------------------------------------------------- what holds

    @invariant()
    def what_is_stored_is_what_is_left(self):
        rows = [row[:2] for row in self.disk.rows()]
        for task_id, known in self.tasks.items():
            count = rows.count(("result", task_id))
            assert count <= 1 or "refused" in known.answers, f"{count} entries for the result of {task_id}"
            if known.stored and not count:
                assert known.answers, f"the result of {task_id} has gone from the disk, and was never answered"
            known.stored = count > 0
            is_settled = known.settled_at is not None and self.stage.time() > known.settled_at + SOON
            if is_settled and not self.ill and self.born < known.settled_at:
                assert not count, f"the result of {task_id} is settled, and still on disk"

    @invariant()
    def what_waits_is_on_disk(self):
        if not self.ill and self.stage.time() > self.born + SOON:
            self.stage.settle(0.05)
            assert self.outbox.depth <= len(self.disk.rows())

    def teardown(self):
        if not hasattr(self, "stage"):
            return
        try:
            self.all_arrives_in_the_end()
        finally:
            self.stage.end_life()
            SqliteStore.close(self.disk)
            self.stage.drop()
            shutil.rmtree(self.home)

    def all_arrives_in_the_end(self):
        self.healing = True
        self.disk.fill(False)
        self.the_disk_answers_again()
        for call in list(self.wire.in_flight):
            self.answer(call, "well")
        self.stage.settle(600.0)
        for task_id, known in self.tasks.items():
            if known.promised:
                assert FINAL.intersection(known.answers), f"the result of {task_id} was lost"
                assert not known.left, f"events {known.left} of {task_id} were lost"
        assert self.outbox.depth == 0
        assert self.disk.rows() == []


def number_of(message):
    return msgspec.msgpack.decode(message)["payload"]["number"]


@pytest.mark.timeout(600)  # a failure is made small first
def test_results_and_events_always_arrive_in_order_and_nothing_stays():
    run_machine(OutboxMachine, examples=25, steps=30)
