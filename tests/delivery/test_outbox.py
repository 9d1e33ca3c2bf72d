"""What waits in the outbox: in which order it goes out, when it is given up, and what is left of it at the end."""

from concurrent.futures import Future

import pytest

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.outbox import (
    BACKLOG_BYTES,
    BACKLOG_LIMIT,
    RETRIES_IN_FLIGHT,
    WaitingResult,
)
from avtomatika_worker.delivery.sqlite_store import WRITE_TIMEOUT
from avtomatika_worker.delivery.store import size_of
from delivery.bench import BROKEN, DELAY, LABEL, NEVER, URL, outcomes, said

# ------------------------------------------------------------------------------------------------ order and limits


def test_deliveries_of_one_lane_stay_in_order_and_other_lanes_go_on(bench):
    bench.send(bench.event(1), 503)
    bench.send(bench.event(2))
    bench.send(bench.event(1, "t2"))
    assert [each["origin_task_id"] for each in bench.sent("event")] == ["t1", "t2"]
    assert bench.outbox.depth == 2
    bench.settle(DELAY)
    assert [each["payload"]["n"] for each in bench.sent("event") if each["origin_task_id"] == "t1"] == [1, 1, 2]
    assert bench.outbox.depth == 0
    assert bench.on_disk == []


def test_a_result_does_not_wait_for_the_events_of_its_task_here(bench):
    bench.send(bench.event(), 503)
    bench.send(bench.result())
    assert len(bench.sent()) == 1


def test_retries_make_a_limited_number_of_calls_at_once(bench):
    for number in range(RETRIES_IN_FLIGHT + 3):
        bench.send(bench.result(f"t{number}"), 503)
    bench.answers += [NEVER] * (RETRIES_IN_FLIGHT + 3)
    bench.settle(2 * DELAY)
    wire = bench.wires[URL]
    assert len(wire.in_flight) == RETRIES_IN_FLIGHT
    wire.in_flight[0].answer(200)
    bench.settle()
    assert len(wire.in_flight) == RETRIES_IN_FLIGHT


def test_an_orchestrator_that_does_not_answer_retries_keeps_none_from_another(bench):
    other = bench.make_link("http://other.test")
    for number in range(RETRIES_IN_FLIGHT):
        bench.send(bench.result(f"t{number}"), 503)
    bench.send(bench.result("t-other"), 503, link=other)
    other.registered("1.0b17")
    bench.answers += [NEVER] * RETRIES_IN_FLIGHT
    bench.settle(2 * DELAY)
    assert len(bench.wires[URL].in_flight) == RETRIES_IN_FLIGHT
    assert bench.outbox.backlog(other) == 0


def test_a_limit_holds_back_retries_that_wait_for_their_turn(bench):
    for number in range(RETRIES_IN_FLIGHT + 1):
        bench.send(bench.result(f"t{number}"), 503)
    bench.answers += [NEVER] * RETRIES_IN_FLIGHT
    bench.settle(2 * DELAY)
    calls = len(bench.calls)
    bench.wires[URL].in_flight[0].answer(429, {"error": "slow down"})
    bench.settle(62.0)
    assert len(bench.calls) == calls
    bench.settle(1.5)
    assert len(bench.calls) > calls


def test_restored_contact_ends_the_wait_after_a_moment(bench):
    bench.send(bench.result(), 503, 503, 503)
    bench.settle(3 * DELAY)  # the third attempt has failed: the next is in 4 delays
    at = bench.stage.time()
    bench.register()
    bench.settle(1.0)
    assert len(bench.calls) == 4
    assert bench.calls[3].at == pytest.approx(at + 0.5, abs=0.02)


def test_a_wait_that_is_nearly_over_is_not_extended_by_restored_contact(bench):
    bench.send(bench.result(), 503)
    bench.settle(DELAY - 0.2)
    bench.register()
    bench.settle(0.25)
    assert bench.at() == [0.0, DELAY]


def test_a_requested_wait_is_kept_when_contact_is_restored(bench):
    bench.send(bench.result(), 429)
    bench.register()
    bench.settle(61.0)
    assert len(bench.calls) == 1
    bench.settle(2.0)
    assert len(bench.calls) == 2


def test_nothing_is_retried_before_the_orchestrator_knows_the_worker(make):
    bench = make(registered=False)
    bench.send(bench.result(), 503)
    bench.settle(1000.0)
    assert len(bench.calls) == 1
    bench.register()
    bench.settle(DELAY)
    assert len(bench.calls) == 2
    assert bench.outbox.depth == 0


# ------------------------------------------------------------------------------------------------ giving up


def test_a_result_that_is_too_old_is_given_up_with_its_whole_story(make, caplog):
    bench = make(max_age=3 * DELAY)
    bench.send(bench.result(), 503, 502, (500, {"error": "oh"}))
    bench.settle(3.5 * DELAY)
    assert bench.at() == [0.0, DELAY, 3 * DELAY]
    text = (
        f"result of task t1 (job j1, success) given up after 12 s and 3 attempts at {URL}; the last one: HTTP 500: oh"
    )
    assert said(caplog)[-1] == ("ERROR", "result_expired", text)
    assert (caplog.records[-1].task_id, caplog.records[-1].job_id) == ("t1", "j1")
    assert bench.outbox.expired == 1
    assert bench.outbox.depth == 0
    assert bench.on_disk == []
    assert bench.counts.counted[-1] == ("worker.results.expired.total", LABEL)


def test_an_event_that_is_too_old_is_given_up_too(make, caplog):
    bench = make(max_age=DELAY)
    bench.send(bench.event(), 503, BROKEN)
    bench.settle(2 * DELAY)
    text = f"event 'note' of task t1 (job j1, event) given up after 4 s and 2 attempts at {URL}; the last one: broken"
    assert said(caplog)[-1] == ("ERROR", "result_expired", text)
    assert (caplog.records[-1].task_id, caplog.records[-1].job_id) == ("t1", "j1")
    assert bench.outbox.expired == 1


def test_each_delivery_that_is_given_up_is_counted(make):
    bench = make(max_age=DELAY)
    for number in range(3):
        bench.send(bench.result(f"t{number}"), 503)
    bench.answers += [503] * 3
    bench.settle(2 * DELAY)
    assert bench.outbox.expired == 3


def test_without_contact_a_result_is_given_up_when_it_is_too_old(make):
    bench = make(registered=False, max_age=50.0)
    bench.send(bench.result(), 503, 503, 503)
    bench.settle(50.0 - 0.1)
    assert bench.outbox.depth == 1
    bench.settle(2 * DELAY)
    assert bench.outbox.expired == 1


def test_what_a_slow_first_attempt_took_counts_for_the_wait_for_contact(make):
    bench = make(registered=False, max_age=50.0)
    bench.send(bench.result(), NEVER, 503)
    bench.settle(60.0)
    assert bench.at() == [0.0, 50.0 + DELAY]
    assert bench.outbox.expired == 1


def test_a_result_that_is_discarded_is_not_tried_again(bench, caplog):
    caplog.set_level("INFO")
    bench.send(bench.result(), 503)
    bench.send(bench.result("t2"), 503)
    caplog.clear()
    bench.outbox.discard_result(bench.link, "t1")
    assert said(caplog) == [("INFO", "result_superseded", "result of task t1 is obsolete")]
    assert (caplog.records[0].task_id, caplog.records[0].job_id) == ("t1", "j1")
    bench.outbox.discard_result(bench.link, "unknown")
    bench.send(bench.result())  # nothing waits for one that is discarded
    assert [each["task_id"] for each in bench.sent()] == ["t1", "t2", "t1"]
    bench.settle(2 * DELAY)
    assert sorted(each["task_id"] for each in bench.sent()[3:]) in (["t2"], ["t1", "t2"])
    assert bench.outbox.depth == 0
    assert bench.on_disk == []


# ------------------------------------------------------------------------------------------------ figures


def test_what_waits_is_counted_for_each_orchestrator(bench):
    other = bench.make_link("http://other.test")
    assert (bench.outbox.depth, bench.outbox.oldest, bench.outbox.backlog(other)) == (0, 0.0, 0)
    bench.send(bench.result("t1"), 503)
    bench.settle(1.0)
    bench.send(bench.result("t2"), 503)
    bench.send(bench.result("t3"), 503, link=other)
    assert bench.outbox.depth == 3
    assert bench.outbox.backlog(bench.link) == 2
    assert bench.outbox.backlog(other) == 1
    assert bench.outbox.oldest == pytest.approx(1.03, abs=0.02)


def test_an_undelivered_result_can_be_asked_for(bench):
    assert bench.outbox.waiting_result(bench.link, "t1") is None
    result = bench.result()
    bench.send(bench.event(), 503)
    bench.send(result, 503)
    assert bench.outbox.waiting_result(bench.link, "t1") == WaitingResult(result, restored=False)
    assert bench.outbox.waiting_result(bench.link, "t2") is None
    bench.settle(DELAY)
    assert bench.outbox.waiting_result(bench.link, "t1") is None


def test_an_orchestrator_with_many_undelivered_results_is_asked_for_no_more_tasks(make):
    bench = make(durable=False)
    other = bench.make_link("http://other.test")
    for number in range(BACKLOG_LIMIT):
        assert not bench.outbox.is_full(bench.link)
        bench.outbox.take_over(bench.link, bench.result(f"t{number}"))
    assert bench.outbox.is_full(bench.link)
    assert not bench.outbox.is_full(other)


def test_an_orchestrator_with_large_undelivered_results_is_asked_for_no_more_tasks(make):
    bench = make(durable=False)
    for task_id, size in (("t1", BACKLOG_BYTES - 1), ("t2", 1)):
        assert not bench.outbox.is_full(bench.link)
        delivery = delivery_of(bench.link, bench.result(task_id))
        delivery.size = size
        bench.outbox.set_aside(delivery)
    assert bench.outbox.is_full(bench.link)
    bench.settle(2.0)
    assert not bench.outbox.is_full(bench.link)


def test_the_size_of_what_waits_is_that_of_its_stored_form(bench):
    result = bench.result(data={"text": "x" * 10_000})
    assert bench.send(result, 503).size == size_of(result) > 10_000


def test_to_drain_is_to_wait_until_all_is_delivered(bench):
    bench.send(bench.result(), 503)
    short, long = (bench.begin(bench.outbox.drained(seconds)) for seconds in (1.0, 10.0))
    bench.settle(1.0)
    assert short.result() is False
    assert not long.done()
    bench.settle(DELAY)
    assert long.result() is True
    assert bench.begin(bench.outbox.drained(0.0)).result() is True


def test_to_drain_is_to_wait_until_the_very_end(bench):
    bench.send(bench.result(), 503)
    bench.settle(DELAY - 0.3)
    drained = bench.begin(bench.outbox.drained(0.6))
    bench.settle(0.4)
    assert drained.result() is True


def test_the_events_of_a_task_are_settled_when_none_of_them_waits(bench):
    bench.send(bench.event(), 503)
    bench.send(bench.event(1, "t2"), (503, {"error": "down"}))
    assert bench.outbox.events_wait(bench.link, "t1")
    assert not bench.outbox.events_wait(bench.link, "t3")
    settled = bench.begin(bench.outbox.events_settled(bench.link, "t1", 10.0))
    late = bench.begin(bench.outbox.events_settled(bench.link, "t1", 1.0))
    bench.settle(2.0)
    assert late.result() is False
    bench.settle(DELAY)
    assert settled.result() is True
    assert not bench.outbox.events_wait(bench.link, "t1")


# ------------------------------------------------------------------------------------------------ ends


def test_what_is_not_delivered_at_the_end_is_on_disk_and_the_log_says_so(bench, caplog):
    bench.send(bench.result("t1"), 503)
    bench.outbox.take_over(bench.link, bench.result("t2"))
    bench.outbox.take_over(bench.link, bench.event(1, "t3"))
    caplog.clear()
    bench.file.at_once = True
    bench.outbox.close()
    assert sorted(bench.on_disk) == [("event", "t3"), ("result", "t1"), ("result", "t2")]
    assert {(each.url, round(each.created, 1)) for each in bench.disk.rows.values()} == {(URL, 1_800_000_000.0)}
    text = (
        "3 results and events were not delivered; they are on disk, and go out when a worker with this id runs here"
        " again"
    )
    assert said(caplog) == [("WARNING", "outbox_left", text)]
    assert caplog.records[0].count == 3
    assert bench.outbox.lost == 0


def test_an_end_with_nothing_left_is_silent(bench, caplog):
    bench.send(bench.result())
    bench.outbox.close()
    assert said(caplog) == []


def test_what_can_be_neither_delivered_nor_stored_is_lost_and_each_is_named(make, caplog):
    bench = make(durable=False)
    bench.outbox.take_over(bench.link, bench.result("t1"))
    bench.outbox.take_over(bench.link, bench.event(1, "t2"))
    bench.outbox.close()
    assert bench.outbox.lost == 2
    assert said(caplog) == [
        ("ERROR", "result_lost", "result of task t1 is lost: neither delivered nor stored"),
        ("ERROR", "result_lost", "event 'note' of task t2 is lost: neither delivered nor stored"),
    ]
    assert [(each.task_id, each.job_id) for each in caplog.records] == [("t1", "j1"), ("t2", "j1")]


def test_lost_deliveries_are_not_counted_as_on_disk(bench, caplog):
    bench.send(bench.result("t1"), 503)
    bench.send(bench.result("t2"), 503)
    bench.disk.full = True
    bench.outbox.take_over(bench.link, bench.result("t3"))
    caplog.clear()
    bench.file.at_once = True
    bench.outbox.close()
    assert bench.outbox.lost == 1
    (_, lost, _), (_, action, text) = said(caplog)
    assert (lost, action) == ("result_lost", "outbox_left")
    assert text.startswith("2 results and events were not delivered; they are on disk")
    assert caplog.records[-1].count == 2


class Unanswered(Future):
    """A write that a disk does not answer. ``waited_for``: the seconds that somebody was patient."""

    waited_for = None

    def result(self, timeout=None):
        self.waited_for = timeout
        raise TimeoutError


def test_the_last_writes_are_waited_for_as_long_as_a_write_may_take(bench):
    write = Unanswered()
    bench.outbox.take_over(bench.link, bench.result())
    bench.file.put = lambda _message: write
    bench.outbox.rescue()
    assert write.waited_for == pytest.approx(WRITE_TIMEOUT)
    assert bench.outbox.lost == 1


def test_rescued_deliveries_are_neither_stored_nor_lost_twice(make):
    bench = make(durable=False)
    bench.outbox.take_over(bench.link, bench.result())
    bench.outbox.rescue()
    bench.outbox.close()
    assert bench.outbox.lost == 1


def test_a_rescue_stores_what_is_on_its_way_too(bench):
    bench.send(bench.result(), NEVER)
    bench.file.at_once = True
    bench.outbox.rescue()
    assert bench.on_disk == [("result", "t1")]
    assert bench.outbox.lost == 0
    bench.outbox.rescue()
    assert len(bench.disk.ever) == 1


def test_after_a_rescue_nothing_goes_out(bench):
    bench.outbox.rescue()
    bench.retries.cancel()
    bench.send(bench.result())
    assert bench.calls == []
    assert bench.outbox.depth == 1


def test_discarded_deliveries_are_neither_kept_at_the_end_nor_lost(bench, caplog):
    bench.send(bench.result(), 503)
    bench.outbox.discard_result(bench.link, "t1")
    caplog.clear()
    bench.file.at_once = True
    bench.outbox.close()
    assert bench.on_disk == []
    assert said(caplog) == []


def test_what_is_no_longer_on_disk_at_the_end_is_written_again(bench):
    bench.send(bench.result(), 503)
    bench.file.check = lambda: False
    bench.file.at_once = True
    bench.outbox.rescue()
    assert bench.on_disk == [("result", "t1")] * 2


def test_once_sending_has_stopped_nothing_goes_out_and_all_is_stored(bench):
    bench.outbox.stop_sending()
    bench.retries.cancel()
    bench.send(bench.result())
    assert bench.calls == []
    assert bench.on_disk == [("result", "t1")]
    assert bench.outbox.depth == 1


def test_a_delivery_that_is_cut_off_is_taken_over(bench):
    bench.answers.append(NEVER)
    task = bench.begin(bench.handover.deliver(bench.link, bench.result(), free=None))
    task.cancel()
    bench.settle()
    assert task.cancelled()
    assert [each["task_id"] for each in bench.sent()] == ["t1", "t1"]
    assert outcomes(bench) == [("result", "delivered")]
    assert bench.outbox.depth == 0
