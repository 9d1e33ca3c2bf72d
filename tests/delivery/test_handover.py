"""From a task's end to the outbox: what its slot and its orchestrator wait for."""

import asyncio
import contextvars

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.handover import HELD, LATE
from delivery.bench import (
    NEVER,
    STALE,
    URL,
    work,
)


class Slot:
    def __init__(self):
        self.freed = 0

    def free(self):
        self.freed += 1


def hand_over(bench, task_id="t1", **more):
    slot = Slot()
    task = bench.begin(bench.handover.deliver(bench.link, bench.result(task_id), free=slot.free, **more))
    return task, slot


def test_a_slot_is_kept_for_an_orchestrator_that_answers_at_once(bench):
    task, slot = hand_over(bench)
    bench.settle(10.0)
    assert task.done()
    assert slot.freed == 0


def test_a_slot_waits_for_no_orchestrator_that_is_slow(bench):
    bench.answers.append(NEVER)
    task, slot = hand_over(bench)
    bench.settle(HELD - 0.02)
    assert slot.freed == 0
    bench.settle(0.02)
    assert (slot.freed, task.done()) == (1, False)
    bench.wires[URL].in_flight[0].answer(200)
    bench.settle(10.0)
    assert (slot.freed, task.done()) == (1, True)


def test_each_slot_is_freed_in_its_own_time(bench):
    bench.answers += [NEVER, NEVER, NEVER]
    _, first = hand_over(bench, "t1")
    bench.settle(0.09)
    task, second = hand_over(bench, "t2")
    bench.settle(0.09)
    _, third = hand_over(bench, "t3")
    bench.wires[URL].in_flight[1].answer(200)
    bench.settle(0.05)
    assert task.done()
    assert [each.freed for each in (first, second, third)] == [1, 0, 0]
    bench.settle(0.14)
    assert [each.freed for each in (first, second, third)] == [1, 0, 0]
    bench.settle(0.06)
    assert [each.freed for each in (first, second, third)] == [1, 0, 1]


def test_a_result_without_a_slot_is_delivered_late_too(bench):
    bench.answers.append(NEVER)
    task = bench.begin(bench.handover.deliver(bench.link, bench.result(), free=None))
    bench.settle(2 * HELD)
    bench.wires[URL].in_flight[0].answer(200)
    bench.settle()
    assert task.done()


def test_an_orchestrator_that_leaves_many_unanswered_gets_no_more_first_attempts(bench):
    other = bench.make_link("http://other.test")
    bench.answers += [NEVER] * LATE
    for number in range(LATE):
        hand_over(bench, f"t{number}")
    bench.settle(HELD)
    bench.retries.cancel()
    task, _ = hand_over(bench, "t-more")
    assert task.done()
    assert len(bench.calls) == LATE
    assert bench.on_disk == [("result", "t-more")]
    bench.begin(bench.handover.deliver(other, bench.result("t-other"), free=None))
    assert len(bench.calls) == LATE + 1
    bench.wires[URL].in_flight[0].answer(200)
    bench.settle()
    hand_over(bench, "t-again")
    assert bench.sent()[-1]["task_id"] == "t-again"


def test_a_late_task_does_not_count_itself_among_the_late_ones(bench):
    bench.answers += [NEVER] * (LATE - 1)
    for number in range(LATE - 1):
        hand_over(bench, f"t{number}")
    last_events = asyncio.Event()
    task, slot = hand_over(bench, "t-late", before=last_events.wait)
    bench.settle(HELD)
    assert slot.freed == 1
    last_events.set()
    bench.settle()
    assert task.done()
    assert bench.calls[-1].body["task_id"] == "t-late"
    assert bench.disk.ever == []


def test_each_answer_lets_one_more_first_attempt_go(bench):
    bench.answers += [NEVER] * (LATE + 2)
    for number in range(LATE):
        hand_over(bench, f"t{number}")
    bench.settle(HELD)
    bench.retries.cancel()
    for _ in range(2):
        bench.wires[URL].in_flight[0].answer(200)
        bench.settle()
    for number in range(2):
        hand_over(bench, f"t-more-{number}")
    bench.settle(HELD)
    assert len(bench.calls) == LATE + 2
    hand_over(bench, "t-too-many")
    assert len(bench.calls) == LATE + 2
    assert bench.on_disk == [("result", "t-too-many")]


CONTEXT = contextvars.ContextVar("CONTEXT", default="nobody's")


def test_a_slot_is_freed_in_an_empty_context(bench):
    """The first task's context, and all it refers to, would stay alive as long as others are late."""
    seen = []

    async def deliver():
        CONTEXT.set("the task's")
        await bench.handover.deliver(bench.link, bench.result(), free=lambda: seen.append(CONTEXT.get()))

    bench.answers.append(NEVER)
    bench.begin(deliver())
    bench.settle(HELD)
    assert seen == ["nobody's"]


def test_slots_are_freed_again_and_again(bench):
    for number in range(3):
        bench.answers.append(NEVER)
        _, slot = hand_over(bench, f"t{number}")
        bench.settle(HELD)
        assert slot.freed == 1
        bench.settle(1.0)


def test_with_store_first_a_result_is_on_disk_before_its_first_attempt(make):
    bench = make(store_first=True)
    bench.answers.append(NEVER)
    hand_over(bench)
    assert len(bench.calls) == 1
    assert bench.on_disk == [("result", "t1")]
    bench.wires[URL].in_flight[0].answer(200)
    bench.settle()
    assert bench.on_disk == []


def test_what_has_to_come_before_a_result_is_waited_for(bench):
    last_events = asyncio.Event()
    task, slot = hand_over(bench, before=last_events.wait)
    bench.settle(0.5)
    assert (bench.calls, slot.freed) == ([], 1)
    last_events.set()
    bench.settle()
    assert task.done()
    assert len(bench.calls) == 1


def test_what_need_not_be_waited_for_is_not(bench):
    task, _ = hand_over(bench, before=lambda: None)
    assert task.done()
    assert len(bench.calls) == 1


def test_a_result_is_the_outboxs_even_when_what_comes_before_it_fails(bench):
    async def fails():
        raise RuntimeError("oh")

    task, _ = hand_over(bench, before=fails)
    assert isinstance(task.exception(), RuntimeError)
    bench.expected_to_fail.append(task)
    assert bench.outbox.waiting_result(bench.link, "t1") is not None or len(bench.calls) == 1
    bench.settle(1.0)
    assert len(bench.calls) == 1


def test_a_result_is_handed_over_with_the_ids_that_its_task_had_before(bench):
    bench.answers += [STALE]
    result = bench.result("task-2", work=work())
    bench.begin(bench.handover.deliver(bench.link, result, free=None, older_ids=["task-1"]))
    assert [each["task_id"] for each in bench.sent()] == ["task-2", "task-1"]


def test_an_event_goes_out_once_it_is_stored(bench):
    on_disk = asyncio.Event()

    async def deliver():
        stored = asyncio.get_running_loop().create_task(on_disk.wait())
        await bench.outbox.deliver_event(delivery_of(bench.link, bench.event()), stored)

    task = bench.begin(deliver())
    bench.settle(0.5)
    assert bench.calls == []
    on_disk.set()
    bench.settle()
    assert task.done()
    assert len(bench.calls) == 1


def test_an_event_whose_storing_is_cut_off_is_taken_over(bench):
    async def deliver():
        stored = asyncio.get_running_loop().create_task(asyncio.Event().wait())
        await bench.outbox.deliver_event(delivery_of(bench.link, bench.event()), stored)

    task = bench.begin(deliver())
    task.cancel()
    bench.settle(1.0)
    assert task.cancelled()
    assert len(bench.calls) == 1  # by the retries
