"""What a former run left, and disks that fail, hang or are missing."""

import dataclasses
from concurrent.futures import Future

import msgspec
import pytest

from avtomatika_worker.delivery.attempt import REPLAYS_DOUBTED, delivery_of
from avtomatika_worker.delivery.outbox import (
    FLUSH_TIMEOUT,
    RESTORED_FOR,
    Outbox,
)
from avtomatika_worker.delivery.sqlite_store import WRITE_TIMEOUT, Kind, Message
from avtomatika_worker.delivery.store import REMIND_EVERY, Store, decode, encode, size_of
from avtomatika_worker.errors import ConfigError, StoreError
from delivery.bench import (
    DELAY,
    FORBIDDEN,
    NEVER,
    STALE,
    URL,
    Bench,
    said,
    work,
)

# ------------------------------------------------------------------------------------------------ after a restart


def left_behind(make, *messages, age=10.0, url=URL):
    """Return a bench whose disk holds what a former run left."""
    bench = make(registered=False)
    created = bench.world.wall() - age
    for row, message in enumerate(messages, 1):
        bench.disk.rows[row] = encode(url, message, created)
    bench.outbox.open([bench.link], required=True)
    return bench


def test_what_a_former_run_left_goes_out_once_the_orchestrator_knows_the_worker(make, caplog):
    shape = make(registered=False)
    bench = left_behind(make, shape.event(1), shape.event(2), shape.result())
    assert said(caplog) == [("WARNING", "outbox_restored", "3 results and events of an earlier run are waiting")]
    bench.settle(100.0)
    assert bench.calls == []
    waiting = bench.outbox.waiting_result(bench.link, "t1")
    assert waiting.restored
    assert waiting.result == shape.result()
    bench.register()
    bench.settle(1.0)
    assert [call.kind for call in bench.calls] == ["event", "event", "result"]
    assert bench.on_disk == []
    assert len(bench.disk.ever) == 0


def test_a_result_of_a_former_run_waits_for_its_events_but_not_indefinitely(make):
    shape = make(registered=False)
    bench = left_behind(make, shape.event(1), shape.result())
    bench.answers.append(NEVER)
    bench.register()
    bench.settle(FLUSH_TIMEOUT - 0.1)
    assert [call.kind for call in bench.calls] == ["event"]
    bench.settle(0.2)
    assert [call.kind for call in bench.calls] == ["event", "result"]


def test_what_is_for_orchestrators_that_are_not_configured_stays_on_disk(make, caplog):
    shape = make()
    bench = left_behind(make, shape.result("t1"), shape.result("t2"), url="http://stranger.test")
    text = "2 stored results and events are for orchestrators that are not configured; they stay on disk"
    assert said(caplog) == [("WARNING", "outbox_strangers", text)]
    bench.register()
    bench.settle(10.0)
    assert bench.calls == []
    assert len(bench.on_disk) == 2


def test_a_stored_message_that_cannot_be_read_is_named_and_the_others_go_out(make, caplog):
    shape = make()
    stored = encode(URL, shape.result("t1"), 0.0)
    bench = make(registered=False)
    bench.disk.rows = {
        1: msgspec.structs.replace(stored, body=b"\xc1"),
        2: encode(URL, shape.event(1, "t2"), bench.world.wall()),
        3: msgspec.structs.replace(encode(URL, shape.event(1, "t3"), 0.0), body=b"\xc1"),
    }
    bench.outbox.open([bench.link], required=True)
    lines = said(caplog)
    assert [(level, action) for level, action, _ in lines] == [
        ("ERROR", "store_unreadable"),
        ("ERROR", "store_unreadable"),
        ("WARNING", "outbox_restored"),
    ]
    assert lines[0][2].startswith("the stored result of task t1 cannot be read: ")
    assert lines[1][2].startswith("the stored event of task t3 cannot be read: ")
    assert lines[2][2].startswith("1 results")
    bench.register()
    bench.settle()
    assert [call.kind for call in bench.calls] == ["event"]


def test_a_restart_with_nothing_left_is_silent(make, caplog):
    make()
    assert said(caplog) == []


@pytest.mark.parametrize(("age", "max_age", "after"), [(1e9, 2 * RESTORED_FOR, RESTORED_FOR), (1e9, 50.0, 50.0)])
def test_messages_of_a_former_run_are_tried_for_a_while_however_old_they_seem(make, age, max_age, after):
    bench = make(registered=False, max_age=max_age)
    bench.disk.rows[1] = encode(URL, bench.result(), bench.world.wall() - age)
    bench.outbox.open([bench.link], required=True)
    bench.answers += [503] * 30
    bench.register()
    bench.settle(after - 1.0)
    assert bench.outbox.expired == 0
    assert bench.outbox.oldest == pytest.approx(max_age - 1.0, abs=0.1)
    bench.settle(5 * after)
    assert bench.outbox.expired == 1


def test_without_contact_what_a_former_run_left_is_tried_when_it_is_too_old_and_given_up(make):
    bench = make(registered=False, max_age=50.0)
    bench.disk.rows[1] = encode(URL, bench.result(), bench.world.wall())
    bench.outbox.open([bench.link], required=True)
    bench.answers += [503, 503]
    bench.settle(60.0)
    assert bench.at() == [50.0, 50.0 + DELAY]
    assert bench.outbox.expired == 1
    assert bench.on_disk == []


@pytest.mark.parametrize(("age", "seen"), [(600.0, 600.0), (-600.0, 0.0)])
def test_the_age_of_what_a_former_run_left_goes_on(make, age, seen):
    bench = make(registered=False, max_age=1e6)
    bench.disk.rows[1] = encode(URL, bench.result(), bench.world.wall() - age)
    bench.outbox.open([bench.link], required=True)
    assert bench.outbox.oldest == pytest.approx(seen, abs=0.1)


@pytest.mark.parametrize(("age", "calls"), [(60.0, REPLAYS_DOUBTED + 1), (70.0, REPLAYS_DOUBTED + 3)])
def test_an_event_of_a_former_run_may_have_arrived_as_long_as_orchestrators_remember_it(make, age, calls):
    shape = make(registered=False)
    bench = left_behind(make, shape.event(), age=age)
    bench.answers += [FORBIDDEN] * (REPLAYS_DOUBTED + 2)
    for _ in range(REPLAYS_DOUBTED + 2):
        bench.register()
        bench.settle(0.6)
    bench.settle(500.0)
    assert len(bench.calls) == calls


def test_a_result_of_a_former_run_that_is_stale_is_kept_for_its_work(make):
    shape = make(registered=False)
    bench = left_behind(make, shape.result("task-1", work=work()))
    bench.answers.append(STALE)
    bench.register()
    bench.settle(1.0)
    assert len(bench.calls) == 1
    assert bench.outbox.works.known(work()) is not None
    assert bench.on_disk == [("result", "task-1")]


# ------------------------------------------------------------------------------------------------ without a disk


class Unusable:
    """A store that cannot be opened."""

    def open(self):
        raise StoreError("no such place")


def test_a_store_that_cannot_be_used_stops_the_start_where_it_is_required(bench, caplog):
    store = Store(Unusable(), bench.world)
    outbox = Outbox(store, max_age=1e6, world=bench.world)
    with pytest.raises(ConfigError, match=r"^WORKER_STATE_DIR: no such place$"):
        outbox.open([bench.link], required=True)
    outbox.open([bench.link], required=False)
    text = (
        "no such place: a crash loses results that could not be delivered yet (set WORKER_STATE_DIR to a writable"
        " directory, or WORKER_RESULT_DURABILITY=off if that is intended)"
    )
    assert said(caplog) == [("ERROR", "store_unusable", text)]
    assert not store.on
    bench.answers.append(503)
    bench.begin(outbox.deliver(delivery_of(bench.link, bench.result())))
    assert outbox.depth == 1


def test_a_disk_that_hangs_is_waited_for_once_and_reported_until_it_answers(bench, caplog):
    bench.disk.hangs = True
    bench.send(bench.result("t1"), 503)
    bench.send(bench.result("t2"), 503)
    caplog.clear()
    bench.settle(WRITE_TIMEOUT - 0.1)
    assert bench.outbox.depth == 0  # both are waited for
    assert said(caplog) == []
    bench.settle(0.1)
    assert bench.outbox.depth == 2
    text = (
        f"{bench.file.path} has not been written for 5 s; undelivered results are in memory only: a"
        " crash would lose them"
    )
    assert said(caplog) == [("ERROR", "store_failed", text)]
    bench.send(bench.result("t3"), 503)
    assert bench.outbox.depth == 3  # it is not waited for again
    caplog.clear()
    bench.disk.hangs = False
    bench.settle(0.6)
    assert said(caplog) == [("WARNING", "store_recovered", "results are kept on disk again after 1 s")]
    assert bench.disk.ever == []  # nothing is there that nobody knows of
    bench.send(bench.result("t4"), 503)
    assert bench.on_disk == [("result", "t4")]


def test_a_write_that_completes_after_it_was_given_up_is_forgotten(bench):
    """A write that has begun cannot be taken back."""
    writing = Future()
    writing.set_running_or_notify_cancel()
    bench.file.put = lambda _: writing
    bench.send(bench.result(), 503)
    bench.settle(WRITE_TIMEOUT)
    bench.disk.rows[7] = "written after all"
    writing.set_result(7)
    bench.settle()
    assert bench.disk.rows == {}


@pytest.mark.parametrize("how", ["stored", "refused"])
def test_a_write_that_goes_on_after_its_delivery_was_cut_off_leaves_nothing(bench, how):
    writing = Future()
    writing.set_running_or_notify_cancel()
    bench.file.put = lambda _: writing
    keeping = bench.begin(bench.store.keep(URL, bench.result(), 0.0))
    keeping.cancel()
    bench.settle()
    assert keeping.cancelled()
    bench.disk.rows[7] = "written after all"
    if how == "stored":
        writing.set_result(7)
    else:
        writing.set_exception(StoreError("full"))
    bench.settle()
    assert (bench.disk.rows == {}) is (how == "stored")


def test_a_disk_that_keeps_failing_is_reported_once_a_minute_until_it_recovers(bench, caplog):
    bench.disk.full = True
    full = f"{bench.file.path}: the disk is full; undelivered results are in memory only: a crash would lose them"

    def keep():
        caplog.clear()
        return bench.begin(bench.store.keep(URL, bench.result(), 0.0)).result()

    assert keep() is None
    assert said(caplog) == [("ERROR", "store_failed", full)]
    bench.settle(REMIND_EVERY - 0.1)
    keep()
    assert said(caplog) == []
    bench.settle(0.1)
    keep()
    assert said(caplog) == [("ERROR", "store_failed", full)]
    bench.settle(REMIND_EVERY - 0.1)
    keep()
    assert said(caplog) == []
    bench.disk.full = False
    assert keep() == 1
    assert said(caplog) == [("WARNING", "store_recovered", "results are kept on disk again after 120 s")]
    assert keep() == 2
    assert said(caplog) == []
    bench.disk.full = True
    keep()
    assert said(caplog) == [("ERROR", "store_failed", full)]


class Refusing:
    """A file that takes nothing."""

    def put(self, _message):
        put = Future()
        put.set_exception(StoreError("the disk is full"))
        return put


@pytest.mark.parametrize(("seconds", "lines"), [(REMIND_EVERY - 1.0, 1), (REMIND_EVERY, 2)])
def test_a_reminder_of_a_failing_disk_is_due_after_exactly_its_interval(bench, caplog, seconds, lines):
    times = [1000.0]
    store = Store(Refusing(), dataclasses.replace(bench.world, monotonic=lambda: times[-1]))
    for now in (1000.0, 1000.0 + seconds):
        times.append(now)
        bench.begin(store.keep(URL, bench.result(), 0.0))
    assert [action for _, action, _ in said(caplog)] == ["store_failed"] * lines


def test_a_value_that_cannot_be_stored_is_sent_all_the_same(bench):
    unheard = bench.result(data={"n": object()})
    assert size_of(unheard) == 0
    assert bench.begin(bench.store.keep(URL, unheard, 0.0)).result() is None
    assert bench.disk.ever == []


def test_a_message_is_stored_with_what_identifies_it():
    shape = Bench(durable=False)
    result, event = shape.result(), shape.event()
    assert encode(URL, result, 5.0) == Message(URL, Kind.RESULT, "t1", msgspec.msgpack.encode(result), 5.0)
    assert encode(URL, event, 5.0) == Message(URL, Kind.EVENT, "t1", msgspec.msgpack.encode(event), 5.0)
    assert encode(URL, shape.event(task_id=None), 5.0).task_id == ""
    assert [decode(encode(URL, each, 5.0)) for each in (result, event)] == [result, event]
    assert size_of(event) == len(msgspec.msgpack.encode(event))
    shape.end()


def test_without_a_disk_nothing_is_ever_stored(make):
    bench = make(durable=False)
    store = bench.store
    assert not store.on
    assert store.open(required=True) == []
    assert bench.begin(store.keep(URL, bench.result(), 0.0)).result() is None
    assert store.keep_at_end([encode(URL, bench.result(), 0.0)] * 2, 1e9) == [False, False]
    assert store.check() is False
    store.forget(1)
    store.close()
