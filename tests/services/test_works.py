"""The results that may still be wanted under another id: which id one goes out under, and which are kept when stale."""

import dataclasses

import msgspec
import pytest

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.works import MOST_BYTES, MOST_IDS, MOST_KEPT, Fate, Works
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.policy.known_work import Known, Stage
from avtomatika_worker.protocol.messages import Event, ResultError, Task, TaskResult
from avtomatika_worker.protocol.work import WorkKey
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.world import REAL

MAX_AGE = 60.0


def work(number=1):
    return WorkKey("http://o.test", f"j{number}", "resize", None, "", "digest")


WORK = work()


class Bench:
    """Works with a clock that stands still, and what they forget and report as missed."""

    def __init__(self):
        self.now = 1000.0
        world = dataclasses.replace(REAL, steady=lambda: self.now, wall=lambda: self.now)
        transport = HttpTransport("http://o.test", user_agent="t")
        self.link = Link(LinkSettings("http://o.test", "token"), "w1", transport, world=world)
        self.forgotten = []
        self.missed = []
        self.works = Works(MAX_AGE, self.forgotten.append)
        self.works.on_missed = lambda link, task: self.missed.append((link, task.task_id))

    def delivery(self, task_id="task-1", *, row=None, size=100, **more):
        ids = {"job_id": "j1", "task_id": task_id, "worker_id": "w1", "origin_worker_id": "w1"}
        result = TaskResult(**{**ids, "status": "success", "data": {}, "work": WORK, **more})
        delivery = delivery_of(self.link, result)
        delivery.row, delivery.size = row, size
        return delivery

    def entered(self, *args, older_ids=(), **more):
        delivery = self.delivery(*args, **more)
        self.works.enter(delivery, older_ids)
        return delivery

    def kept(self, *args, **more):
        """Return the delivery of a result that is stale under its only id."""
        delivery = self.entered(*args, **more)
        assert self.refuse(delivery) is Fate.KEPT
        return delivery

    def refuse(self, delivery, *, now=100.0):
        return self.works.refused(delivery, delivery.message, now)

    def address(self, delivery):
        """Give the result the id that it goes out under, as an attempt does, and return that."""
        delivery.message = self.works.addressed(delivery, delivery.message)
        return delivery.message.task_id

    def hand_out(self, task_id, key=WORK, *, newest=True):
        return self.works.add(key, Task(job_id="j1", task_id=task_id, type="resize"), newest=newest)

    def ids_tried(self, delivery):
        """Return the ids that a result goes out under while each is refused."""
        tried = [self.address(delivery)]
        while self.refuse(delivery) is Fate.TRY_NEXT:
            tried.append(self.address(delivery))
        return tried


@pytest.fixture
def bench():
    return Bench()


def test_work_that_is_done_again_takes_the_place_of_its_stale_result(bench):
    for row in (1, 2, 3):
        delivery = bench.entered(f"task-{row}", row=row)
        assert bench.works.known(WORK).stage is Stage.ENDED
        assert bench.forgotten == [*range(1, row)]
        assert bench.refuse(delivery) is Fate.KEPT
    assert bench.works.known(WORK).stage is Stage.STALE


def test_works_know_how_far_the_result_of_each_work_is(bench):
    assert bench.works.known(WORK) is None
    delivery = bench.entered()
    assert bench.works.known(WORK) == Known(Stage.ENDED)
    bench.refuse(delivery, now=123.0)
    assert bench.works.known(WORK) == Known(Stage.STALE, answered_at=123.0)
    assert bench.works.known(work(2)) is None


def test_a_result_goes_out_under_the_id_of_the_newest_hand_out_then_under_the_older_ones(bench):
    delivery = bench.entered("task-1")
    assert bench.hand_out("task-2") is None
    assert bench.hand_out("task-3") is None
    assert bench.ids_tried(delivery) == ["task-3", "task-2", "task-1"]
    assert bench.works.known(WORK).stage is Stage.STALE


def test_a_hand_out_that_is_older_than_what_is_known_is_tried_last(bench):
    delivery = bench.entered("task-2")
    bench.hand_out("task-1", newest=False)
    assert bench.ids_tried(delivery) == ["task-2", "task-1"]


def test_an_id_that_is_handed_out_twice_counts_once_and_as_the_newest(bench):
    delivery = bench.entered("task-1", older_ids=["task-0"])
    bench.hand_out("task-0")
    assert bench.ids_tried(delivery) == ["task-0", "task-1"]


def test_a_result_is_tried_under_the_ids_that_its_task_had_before_too(bench):
    delivery = bench.entered("task-3", older_ids=["task-1", "task-2"])
    assert bench.ids_tried(delivery) == ["task-3", "task-2", "task-1"]


def test_only_the_newest_ids_are_tried(bench):
    before = [f"task-{number}" for number in range(MOST_IDS)]
    delivery = bench.entered("task-9", older_ids=before)
    assert bench.ids_tried(delivery) == ["task-9", *before[:0:-1]]


def test_only_the_newest_ids_are_tried_of_hand_outs_too(bench):
    delivery = bench.entered("task-0")
    for number in range(1, MOST_IDS + 2):
        bench.hand_out(f"task-{number}")
    assert bench.ids_tried(delivery) == [f"task-{number}" for number in range(MOST_IDS + 1, 1, -1)]


def test_a_result_whose_work_has_no_name_keeps_its_id(bench):
    delivery = bench.entered(work=None)
    assert bench.works.addressed(delivery, delivery.message) is delivery.message
    assert bench.refuse(delivery) is Fate.SETTLED
    bench.works.accepted(delivery, delivery.message)
    bench.works.leave(delivery)
    assert bench.missed == []


def test_a_result_that_already_has_the_newest_id_is_not_copied(bench):
    delivery = bench.entered()
    assert bench.works.addressed(delivery, delivery.message) is delivery.message


def test_an_event_is_not_the_result_of_any_work(bench):
    ids = {"event_id": "e", "worker_id": "w1", "origin_worker_id": "w1"}
    event = delivery_of(bench.link, Event(**ids, event_type="note", payload={}, origin_task_id="task-1"))
    bench.works.enter(event)
    bench.works.leave(event)
    assert bench.works.known(WORK) is None


@pytest.mark.parametrize(
    "ending",
    [
        {"status": "cancelled"},
        {"status": "failure", "error": ResultError(code="TRANSIENT_ERROR", message="later")},
        {"work": None},
    ],
    ids=["cancelled", "tried again", "without a name"],
)
def test_a_result_that_ends_no_work_is_not_remembered(bench, ending):
    delivery = bench.entered(**ending)
    assert bench.works.known(WORK) is None
    assert bench.address(delivery) == "task-1"
    assert bench.refuse(delivery) is Fate.SETTLED
    assert bench.works.known(WORK) is None


def test_a_failure_after_which_nothing_is_tried_again_is_remembered(bench):
    bench.entered(status="failure", error=ResultError(code="PERMANENT_ERROR", message="never"))
    assert bench.works.known(WORK) == Known(Stage.ENDED)


def test_a_result_that_becomes_one_to_be_tried_again_is_not_kept_when_stale(bench):
    delivery = bench.entered()
    error = ResultError(code="INTERNAL_ERROR", message="refused")
    delivery.message = msgspec.structs.replace(delivery.message, status="failure", error=error)
    assert bench.refuse(delivery) is Fate.SETTLED


def test_a_stale_result_is_begun_again_when_its_work_is_handed_out_and_only_once(bench):
    delivery = bench.kept("task-1")
    assert bench.hand_out("task-2", work(2)) is None
    assert bench.hand_out("task-2") is delivery
    assert bench.works.known(WORK) == Known(Stage.ENDED)
    assert bench.hand_out("task-2") is None
    assert bench.ids_tried(delivery) == ["task-2"]


def test_hand_outs_of_other_work_change_nothing(bench):
    delivery = bench.entered("task-1")
    assert bench.hand_out("task-2", work(2)) is None
    assert bench.ids_tried(delivery) == ["task-1"]


def test_a_stale_result_that_is_too_old_is_given_up(bench):
    young, old = bench.delivery("task-1"), bench.delivery("task-2", work=work(2))
    for each in (young, old):
        bench.works.enter(each)
    bench.now += MAX_AGE
    assert bench.refuse(young) is Fate.KEPT
    bench.now += 0.001
    assert bench.refuse(old) is Fate.SETTLED


def test_a_result_that_was_replaced_by_that_of_the_same_work_answers_nothing_else(bench):
    first = bench.entered("task-1")
    second = bench.entered("task-2")
    bench.hand_out("task-3")
    assert bench.address(first) == "task-1"
    assert bench.refuse(first) is Fate.SETTLED
    bench.works.leave(first)
    bench.works.accepted(first, first.message)
    assert bench.missed == []
    assert bench.works.known(WORK) == Known(Stage.ENDED)
    assert bench.ids_tried(second) == ["task-3", "task-2"]


def test_settled_work_is_forgotten(bench):
    delivery = bench.entered()
    bench.works.leave(delivery)
    assert bench.works.known(WORK) is None
    bench.works.leave(delivery)
    assert bench.hand_out("task-2") is None
    assert bench.works.known(WORK) is None


def test_hand_outs_that_are_newer_than_the_id_that_was_accepted_are_other_work(bench):
    delivery = bench.entered("task-1")
    bench.hand_out("task-2")
    bench.address(delivery)
    bench.hand_out("task-3")
    bench.hand_out("task-4")
    bench.works.accepted(delivery, delivery.message)
    assert bench.missed == [(bench.link, "task-3"), (bench.link, "task-4")]


def test_hand_outs_that_are_not_newer_than_the_id_that_was_accepted_are_not_missed(bench):
    delivery = bench.entered("task-3", older_ids=["task-1"])
    bench.hand_out("task-2", newest=False)
    bench.works.accepted(delivery, delivery.message)
    assert bench.missed == []


def test_what_was_handed_out_under_an_id_that_is_stale_is_not_missed(bench):
    delivery = bench.entered("task-1")
    bench.hand_out("task-2")
    bench.address(delivery)
    assert bench.refuse(delivery) is Fate.TRY_NEXT
    assert bench.address(delivery) == "task-1"
    bench.works.accepted(delivery, delivery.message)
    assert bench.missed == []


def test_when_the_accepted_id_was_the_oldest_of_too_many_all_hand_outs_are_missed(bench):
    delivery = bench.entered("task-0")
    for number in range(1, MOST_IDS + 2):
        bench.hand_out(f"task-{number}")
    bench.works.accepted(delivery, delivery.message)  # it went out before they came
    assert [task_id for _, task_id in bench.missed] == [f"task-{number}" for number in range(2, MOST_IDS + 2)]


def test_only_a_limited_number_of_stale_results_is_kept_the_newest(bench):
    for number in range(MOST_KEPT):
        bench.kept(row=number, work=work(number))
    assert bench.forgotten == []
    for number in range(MOST_KEPT, MOST_KEPT + 2):
        bench.kept(row=number, work=work(number))
    assert bench.forgotten == [0, 1]
    assert bench.works.known(work(1)) is None
    assert bench.works.known(work(2)) is not None


def test_only_a_limited_size_of_stale_results_is_kept_the_newest(bench):
    half = MOST_BYTES // 2
    for number in range(2):
        bench.kept(row=number, size=half, work=work(number))
    assert bench.forgotten == []
    bench.kept(row=2, size=1, work=work(2))
    assert bench.forgotten == [0]
    bench.kept(row=3, size=half - 1, work=work(3))
    assert bench.forgotten == [0]
    bench.kept(row=4, size=MOST_BYTES - half, work=work(4))
    assert bench.forgotten == [0, 1]


def test_a_small_result_that_is_kept_no_longer_makes_little_room(bench):
    bench.kept(row=0, size=1_000, work=work(0))
    bench.kept(row=1, size=MOST_BYTES - 1_000, work=work(1))
    bench.kept(row=2, size=1, work=work(2))
    assert bench.forgotten == [0]
    bench.kept(row=3, size=1_000, work=work(3))
    assert bench.forgotten == [0, 1]


def test_a_stale_result_is_kept_however_long_it_is_while_there_is_no_other(bench):
    for row in (0, 1):
        bench.kept(row=row, size=2 * MOST_BYTES, work=work(row))
    assert bench.forgotten == [0]


@pytest.mark.parametrize("how", ["handed out again", "done again"])
def test_dropped_stale_results_take_no_room(bench, how):
    bench.kept(row=0, size=MOST_BYTES, work=work(0))
    if how == "done again":
        bench.entered(row=5, work=work(0))
        assert bench.forgotten == [0]
    else:
        assert bench.hand_out("task-2", work(0)) is not None
        assert bench.forgotten == []
    bench.forgotten.clear()
    bench.kept(row=1, size=MOST_BYTES // 2, work=work(1))
    bench.kept(row=2, size=MOST_BYTES // 2, work=work(2))
    assert bench.forgotten == []
    bench.kept(row=3, size=1, work=work(3))
    assert bench.forgotten == [1]
