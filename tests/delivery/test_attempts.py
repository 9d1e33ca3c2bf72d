"""What each answer of an orchestrator to a result or an event leads to, and when the next attempt is made."""

import msgspec
import pytest

from avtomatika_worker.delivery.attempt import REPLAYS_DOUBTED
from avtomatika_worker.delivery.store import size_of
from avtomatika_worker.link.link import CALL_TIMEOUT
from delivery.bench import (
    BROKEN,
    DELAY,
    FORBIDDEN,
    GOOD,
    IGNORED,
    LABEL,
    NEVER,
    REFUSED,
    STALE,
    URL,
    hand_out,
    outcomes,
    said,
    work,
)

# ------------------------------------------------------------------------------------------------ first attempts


def test_a_result_that_is_accepted_at_once_is_never_written(bench, caplog):
    delivery = bench.send(bench.result())
    assert [each["task_id"] for each in bench.sent()] == ["t1"]
    assert outcomes(bench) == [("result", "delivered")]
    assert bench.counts.times == [("worker.results.delivery.duration", 0.0, LABEL)]
    assert bench.disk.ever == []
    assert delivery.row is None
    assert bench.outbox.depth == 0
    assert said(caplog, debug=True) == []


def test_an_event_that_is_accepted_at_once_is_never_written(bench):
    bench.send(bench.event())
    assert [each["payload"] for each in bench.sent("event")] == [{"n": 1}]
    assert outcomes(bench) == [("event", "delivered")]
    assert bench.counts.times == []
    assert bench.disk.ever == []


def test_the_time_of_a_delivery_begins_when_the_result_is_made(bench):
    bench.send(bench.result(), 503)
    bench.settle(DELAY)
    ((name, seconds, label),) = bench.counts.times
    assert (name, round(seconds, 1), label) == ("worker.results.delivery.duration", DELAY, LABEL)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status": "ignored", "reason": "job_finished"}, "job_finished"),
        ({"status": "ignored", "reason": "job_finished", "message": "too late"}, "job_finished"),
        ({"status": "ignored", "message": "too late"}, "too late"),
    ],
)
def test_a_result_that_is_ignored_is_settled_and_the_log_has_the_reason(bench, caplog, answer, reason):
    caplog.set_level("INFO")
    bench.send(bench.result(), answer)
    assert outcomes(bench) == [("result", "ignored")]
    assert said(caplog) == [("INFO", "result_ignored", f"result of task t1 ignored by {URL}: {reason}")]
    assert bench.outbox.depth == 0


@pytest.mark.parametrize("what", ["result", "event"])
def test_what_fails_waits_on_disk_and_is_tried_again_later_and_later_until_it_is_accepted(bench, caplog, what):
    name = "result of task t1" if what == "result" else "event 'note' of task t1"
    delivery = bench.send(getattr(bench, what)(), 503, BROKEN)
    assert bench.on_disk == [(what, "t1")]
    assert bench.outbox.depth == 1
    assert bench.outbox.backlog(bench.link) == 1
    (line,) = said(caplog)
    text = f"{name} not delivered to {URL} (attempt 1), next in 4.0 s: HTTP 503: down"
    assert line == ("WARNING", "result_retry", text)
    bench.settle(3 * DELAY)
    assert bench.at() == [0.0, DELAY, 3 * DELAY]
    assert outcomes(bench) == [(what, "failed"), (what, "failed"), (what, "delivered")]
    assert delivery.last_error == "broken"
    assert bench.on_disk == []
    assert bench.outbox.depth == 0
    assert len(bench.disk.ever) == 1


def test_an_attempt_that_is_never_answered_counts_as_failed(bench, caplog):
    bench.send(bench.result(), NEVER)
    bench.settle(CALL_TIMEOUT + DELAY)
    assert bench.at() == [0.0, CALL_TIMEOUT + DELAY]
    assert [action for _, action, _ in said(caplog)] == ["result_retry"]


def test_faults_of_one_kind_are_one_line_of_log_and_those_of_another_kind_are_another(bench, caplog):
    for number, answer in enumerate([503, 503, BROKEN, 502]):
        bench.send(bench.result(f"t{number}"), answer)
    assert [text.split("task ")[1][:2] for _, _, text in said(caplog)] == ["t0", "t2", "t3"]


def test_an_answer_that_is_not_from_an_orchestrator_is_a_failure(bench):
    bench.send(bench.result(), {"status": "hello"})
    assert outcomes(bench) == [("result", "failed")]
    bench.settle(DELAY)
    assert outcomes(bench)[1:] == [("result", "delivered")]


def test_without_a_disk_what_fails_waits_in_memory(make):
    bench = make(durable=False)
    delivery = bench.send(bench.result(), 503)
    assert delivery.row is None
    assert bench.outbox.depth == 1
    bench.settle(DELAY)
    assert outcomes(bench) == [("result", "failed"), ("result", "delivered")]


# ------------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize(("headers", "wait"), [({}, 62.0), ({"retry-after": "10"}, 11.0)])
def test_a_limit_holds_all_results_back_and_no_events(bench, caplog, headers, wait):
    bench.answers.append(NEVER)
    bench.send(bench.result("t1"))
    bench.wires[URL].in_flight[0].answer(429, {"error": "slow down"}, **headers)
    bench.settle()
    assert outcomes(bench) == [("result", "limited")]
    bench.send(bench.result("t2"))
    bench.send(bench.event())
    assert [(call.kind, call.at) for call in bench.calls[1:]] == [("event", bench.calls[-1].at)]
    assert bench.on_disk == [("result", "t1"), ("result", "t2")]
    bench.settle(wait - 0.5)
    assert len(bench.calls) == 2
    bench.settle(1.0)
    assert sorted(each["task_id"] for each in bench.sent()[1:]) == ["t1", "t2"]
    assert f"next in {wait:.1f} s" in caplog.text


def test_a_limit_holds_results_back_to_its_end(bench):
    bench.send(bench.result("t1"), 429)
    bench.settle(61.8)
    bench.send(bench.result("t2"))
    assert len(bench.calls) == 1
    bench.settle(1.0)
    assert len(bench.calls) == 3


def test_a_limit_of_events_holds_no_result_back(bench):
    bench.send(bench.event(), 429)
    assert outcomes(bench) == [("event", "limited")]
    bench.send(bench.result())
    assert len(bench.sent()) == 1


# ------------------------------------------------------------------------------------------------ final refusals


def test_a_result_that_is_refused_for_good_is_replaced_by_a_failure_that_says_why(bench, caplog):
    bench.send(bench.result(), REFUSED)
    first, second = bench.sent()
    assert first["status"] == "success"
    assert (second["status"], second["error"]["code"]) == ("failure", "INTERNAL_ERROR")
    assert "413" in second["error"]["message"]
    assert outcomes(bench) == [("result", "refused"), ("result", "delivered")]
    text = f"result of task t1 refused by {URL}: HTTP 413: too large"
    assert said(caplog) == [("ERROR", "result_refused", text)]
    assert bench.outbox.depth == 0


def test_a_failure_that_is_refused_too_is_settled(bench):
    bench.send(bench.result(), REFUSED, REFUSED)
    assert outcomes(bench) == [("result", "refused")] * 2
    assert bench.outbox.depth == 0
    bench.settle(100.0)
    assert len(bench.calls) == 2


def test_what_takes_the_place_of_a_stored_result_does_so_on_disk(make):
    bench = make(store_first=True)
    result = bench.result()
    task = bench.begin(bench.handover.deliver(bench.link, result, free=None))
    bench.settle()
    assert task.done()
    assert bench.disk.ever != []
    bench.answers += [REFUSED, 503]
    bench.begin(bench.handover.deliver(bench.link, bench.result("t2"), free=None))
    bench.settle()
    assert bench.on_disk == [("result", "t2")]
    (row,) = bench.disk.rows.values()
    assert msgspec.msgpack.decode(row.body)["error"]["code"] == "INTERNAL_ERROR"
    assert row.url == URL
    bench.settle(DELAY)
    assert bench.on_disk == []


def test_what_takes_the_place_of_a_stored_result_that_cannot_be_sent_does_so_on_disk(make):
    bench = make(store_first=True)
    bench.answers += [503]
    bench.begin(bench.handover.deliver(bench.link, bench.result(data={"raw": b"bytes"}), free=None))
    (row,) = bench.disk.rows.values()
    assert msgspec.msgpack.decode(row.body)["error"]["code"] == "CONTRACT_VIOLATION_ERROR"
    assert len(bench.disk.ever) == 2
    bench.settle(DELAY)
    assert bench.on_disk == []


@pytest.mark.parametrize(
    ("data", "answers", "kept"),
    [({"text": "\ud800"}, [STALE], [("result", "task-1")]), ({"n": 1}, [REFUSED, STALE], [])],
)
def test_a_stale_failure_in_place_of_a_result_is_kept_unless_its_task_is_tried_again(bench, data, answers, kept):
    bench.send(bench.result("task-1", data=data, work=work()), *answers)
    assert bench.sent()[-1]["status"] == "failure"
    assert len(bench.calls) == len(answers)
    assert bench.outbox.depth == 0
    assert bench.on_disk == kept


def test_an_event_that_is_refused_for_good_is_dropped_with_an_error(bench, caplog):
    bench.send(bench.event(), REFUSED)
    assert outcomes(bench) == [("event", "refused")]
    text = f"event 'note' of task t1 was not accepted by {URL}: HTTP 413: too large"
    assert said(caplog) == [("ERROR", "event_refused", text)]
    assert bench.outbox.depth == 0


def test_an_event_that_the_orchestrator_calls_an_error_is_dropped_with_an_error(bench, caplog):
    bench.send(bench.event(), {"status": "error", "code": "UNKNOWN_JOB", "message": "no such job"})
    assert outcomes(bench) == [("event", "refused")]
    text = f"event 'note' of task t1 was not accepted by {URL}: UNKNOWN_JOB: no such job"
    assert said(caplog) == [("ERROR", "event_refused", text)]


def test_a_result_that_cannot_be_written_is_replaced_by_a_failure_that_says_why(bench, caplog):
    bench.send(bench.result(data={"text": "\ud800"}))
    (sent,) = bench.sent()
    assert (sent["status"], sent["error"]["code"]) == ("failure", "CONTRACT_VIOLATION_ERROR")
    ((level, action, text),) = said(caplog)
    assert (level, action) == ("ERROR", "result_unsendable")
    assert text.startswith("the result of task t1 cannot be sent: $.data.text: ")
    assert outcomes(bench) == [("result", "delivered")]


def test_an_event_that_cannot_be_written_is_dropped_with_an_error(bench, caplog):
    bench.send(bench.event(payload={"text": "\ud800"}))
    assert bench.calls == []
    ((level, action, text),) = said(caplog)
    assert (level, action) == ("ERROR", "event_refused")
    assert text.startswith(f"event 'note' of task t1 was not accepted by {URL}: it cannot be sent: $.payload.text: ")
    assert outcomes(bench) == [("event", "refused")]
    assert bench.outbox.depth == 0


# ------------------------------------------------------------------------------------------------ replays


def forbidden_after(bench, *answers):
    """Have an event forbidden again and again, with a registration after each attempt."""
    bench.send(bench.event(), *answers)
    for _ in answers:
        bench.settle(0.6)
        bench.register()


def test_an_event_whose_answer_was_lost_and_that_is_refused_as_a_replay_counts_as_delivered(bench, caplog):
    caplog.set_level("INFO")
    forbidden_after(bench, BROKEN, *[FORBIDDEN] * (REPLAYS_DOUBTED + 1))
    bench.settle(200.0)
    assert len(bench.calls) == REPLAYS_DOUBTED + 2
    assert outcomes(bench) == [("event", "failed")] * (REPLAYS_DOUBTED + 1) + [("event", "delivered")]
    text = "it was refused as a replay after a lost response"
    text = f"event 'note' of task t1 counts as delivered to {URL}: {text}"
    assert said(caplog)[-1] == ("INFO", "event_replayed", text)
    assert bench.on_disk == []


def test_an_event_that_may_have_been_processed_although_it_failed_counts_as_delivered_then(bench):
    forbidden_after(bench, 503, *[FORBIDDEN] * (REPLAYS_DOUBTED + 1))
    bench.settle(200.0)
    assert outcomes(bench)[-1] == ("event", "delivered")
    assert len(bench.calls) == REPLAYS_DOUBTED + 2


def test_each_refusal_as_a_replay_has_the_link_registered_again(bench):
    bench.send(bench.event(), BROKEN, *[FORBIDDEN] * 3)
    bench.register()
    bench.settle(1.0)
    assert bench.link.broken.is_open
    assert len(bench.calls) == 2


def test_refusals_without_a_registration_in_between_say_nothing_about_replays(bench):
    bench.send(bench.event(), BROKEN, *[FORBIDDEN] * 7)
    bench.settle(DELAY * 2**9)
    assert len(bench.calls) == 9  # the last of them was answered well
    assert outcomes(bench) == [("event", "failed")] * 8 + [("event", "delivered")]


def test_refusals_between_two_registrations_count_as_one(bench):
    bench.send(bench.event(), BROKEN, *[FORBIDDEN] * REPLAYS_DOUBTED)
    bench.settle(4 * DELAY)
    assert len(bench.calls) == REPLAYS_DOUBTED + 1
    bench.answers.append(FORBIDDEN)
    bench.register()
    bench.settle(100 * DELAY)
    assert len(bench.calls) == REPLAYS_DOUBTED + 3  # the last of them was answered well


@pytest.mark.parametrize("between", [BROKEN, 401, NEVER])
def test_another_failure_in_between_begins_the_doubt_again(bench, between):
    answers = [BROKEN, *[FORBIDDEN] * REPLAYS_DOUBTED, between, *[FORBIDDEN] * REPLAYS_DOUBTED]
    bench.send(bench.event(), *answers)
    for _ in answers:
        bench.settle(40.0)
        bench.register()
    bench.settle(200.0)
    assert len(bench.calls) == len(answers) + 1


def test_a_proxys_refusal_says_nothing_about_replays(bench):
    bench.send(bench.event(), BROKEN, *[NEVER] * 4)
    for _ in range(4):
        bench.settle(0.6)
        bench.register()
        bench.settle(0.6)
        bench.wires[URL].in_flight[0].answer(403, {}, **{"x-rxon-version": None})
    bench.settle(200.0)
    assert len(bench.calls) == 6


@pytest.mark.parametrize("case", ["a result", "an event that cannot have arrived", "an orchestrator without replays"])
def test_what_cannot_be_a_replay_is_tried_until_it_is_accepted(make, case):
    bench = make(version="1.0b15" if case == "an orchestrator without replays" else "1.0b17")
    message = bench.result() if case == "a result" else bench.event()
    first = 401 if case == "an event that cannot have arrived" else BROKEN
    answers = [first, *[FORBIDDEN] * (REPLAYS_DOUBTED + 2)]
    bench.send(message, *answers)
    for _ in answers:
        bench.settle(0.6)
        bench.register()
    bench.settle(1000.0)
    assert len(bench.calls) == len(answers) + 1


# ------------------------------------------------------------------------------------------------ checkpoints and work


@pytest.mark.parametrize(
    ("answer", "removed"),
    [
        (GOOD, ["c1"]),
        (IGNORED, ["c1"]),
        (STALE, []),
        ({"status": "ignored", "reason": "worker_mismatch"}, []),
    ],
)
def test_a_checkpoint_is_removed_with_its_result_unless_another_attempt_goes_on_with_it(bench, answer, removed):
    bench.send(bench.result(checkpoint="c1"), answer)
    assert [key for key, _ in bench.removed] == removed


def test_a_checkpoint_is_removed_with_a_result_that_is_accepted_later(bench):
    bench.send(bench.result(checkpoint="c1"), 503)
    bench.settle(DELAY)
    assert bench.removed == [("c1", 1)]
    assert bench.on_disk == []


def test_the_result_that_ends_a_checkpoint_is_on_disk_until_that_is_removed(bench):
    bench.begin(bench.handover.deliver(bench.link, bench.result(checkpoint="c1"), free=None))
    bench.settle()
    assert bench.removed == [("c1", 1)]
    assert bench.on_disk == []


def test_a_stale_result_goes_out_at_once_under_another_id(bench, caplog):
    caplog.set_level("INFO")
    bench.answers.append(NEVER)
    bench.send(bench.result("task-1", work=work()))
    hand_out(bench, "task-2")
    bench.wires[URL].in_flight[0].answer(200, STALE)
    bench.settle()
    assert [each["task_id"] for each in bench.sent()] == ["task-1", "task-2"]
    assert outcomes(bench) == [("result", "delivered")]
    assert said(caplog) == []
    assert bench.outbox.works.known(work()) is None
    assert bench.on_disk == []


def test_a_result_that_is_stale_under_every_id_is_kept_on_disk_until_its_work_is_handed_out_again(bench, caplog):
    caplog.set_level("INFO")
    result = bench.result("task-1", work=work())
    delivery = bench.send(result, STALE)
    assert outcomes(bench) == [("result", "ignored")]
    text = f"result of task task-1 ignored by {URL}: stale_task; it is kept, in case the task is handed out again"
    assert said(caplog) == [("INFO", "result_ignored", text)]
    assert bench.on_disk == [("result", "task-1")]
    assert delivery.size == size_of(result)
    assert bench.outbox.works.known(work()).answered_at == pytest.approx(bench.link.now(), abs=0.02)
    assert bench.outbox.depth == 0
    assert hand_out(bench, "task-2") is delivery
    bench.begin(bench.outbox.deliver(delivery))
    assert [each["task_id"] for each in bench.sent()] == ["task-1", "task-2"]
    assert bench.on_disk == []


def test_a_stale_result_leaves_the_disk_when_its_work_was_done_again(bench):
    bench.send(bench.result("task-1", work=work()), STALE)
    assert bench.on_disk == [("result", "task-1")]
    bench.send(bench.result("task-2", work=work()))
    assert bench.on_disk == []


def test_a_stale_result_whose_work_has_no_name_is_settled(bench):
    bench.send(bench.result(), STALE)
    assert outcomes(bench) == [("result", "ignored")]
    assert bench.disk.ever == []


def test_hand_outs_that_came_after_the_result_had_gone_are_reported_as_missed(bench):
    missed = []
    bench.outbox.works.on_missed = lambda link, task: missed.append((link, task.task_id))
    bench.answers.append(NEVER)
    bench.send(bench.result("task-1", work=work()))
    hand_out(bench, "task-2")
    bench.wires[URL].in_flight[0].answer(200)
    bench.settle()
    assert missed == [(bench.link, "task-2")]


def test_a_hand_out_that_is_missed_needs_nobody_to_hear_of_it(bench):
    bench.answers.append(NEVER)
    bench.send(bench.result("task-1", work=work()))
    hand_out(bench, "task-2")
    bench.wires[URL].in_flight[0].answer(200)
    bench.settle()
    assert outcomes(bench) == [("result", "delivered")]
    assert len(bench.sent()) == 1


@pytest.mark.parametrize(("answer", "missed"), [(IGNORED, []), (GOOD, ["task-2"])])
def test_hand_outs_are_missed_only_by_a_result_that_is_accepted(bench, answer, missed):
    seen = []
    bench.outbox.works.on_missed = lambda _, task: seen.append(task.task_id)
    bench.send(bench.result("task-1", work=work()), NEVER)
    hand_out(bench, "task-2")
    bench.wires[URL].in_flight[0].answer(200, answer)
    bench.settle()
    assert seen == missed
