"""Results that are kept although they were stale: at most one for each piece of work."""

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.works import Fate, Works
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.policy.known_work import Stage
from avtomatika_worker.protocol.messages import TaskResult
from avtomatika_worker.protocol.work import WorkKey
from avtomatika_worker.transport.http import HttpTransport

WORK = WorkKey("http://o.test", "j1", "resize", None, "", "digest")


def a_result_on_disk(row):
    link = Link(LinkSettings("http://o.test", "token"), "w1", HttpTransport("http://o.test", user_agent="t"))
    ids = {"job_id": "j1", "task_id": f"task-{row}", "worker_id": "w1", "origin_worker_id": "w1"}
    result = TaskResult(**ids, status="success", data={}, work=WORK)
    delivery = delivery_of(link, result)
    delivery.row, delivery.size = row, 100
    return delivery


def test_work_that_is_done_again_takes_the_place_of_its_stale_result():
    forgotten = []
    works = Works(60.0, forgotten.append)
    for row in (1, 2, 3):
        delivery = a_result_on_disk(row)
        works.enter(delivery)
        assert works.known(WORK).stage is Stage.ENDED
        assert forgotten == [*range(1, row)]
        assert works.refused(delivery, delivery.message, now=100.0) is Fate.KEPT
    assert works.known(WORK).stage is Stage.STALE
