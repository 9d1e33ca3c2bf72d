"""What is kept on disk is there once, and both loops may keep something at the same time."""

import asyncio
import contextlib
import sqlite3
import threading

import pytest

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.delivery.sqlite_store import SqliteStore
from avtomatika_worker.delivery.store import Store
from avtomatika_worker.errors import StoreError
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.protocol.messages import TaskResult
from avtomatika_worker.transport.http import HttpTransport


class BusyDisk(SqliteStore):
    """A store whose writes begin at once and end when they are let go."""

    def __init__(self, directory):
        super().__init__(directory, "w1")
        self.writing, self.go = threading.Event(), threading.Event()

    def _write(self, writes):
        self.writing.set()
        self.go.wait(10)
        super()._write(writes)


def result(number):
    return TaskResult(job_id="j", task_id=f"t{number}", worker_id="w1", origin_worker_id="w1", status="success")


def link():
    return Link(LinkSettings(url="http://o.test", token="t"), "w1", HttpTransport("http://o.test", user_agent="test"))


@pytest.mark.parametrize("begun", [True, False], ids=["while it is written", "before it is written"])
async def test_a_result_whose_delivery_is_cancelled_while_it_is_stored_is_stored_once(tmp_path, begun):
    disk = BusyDisk(tmp_path)
    outbox = Outbox(Store(disk), max_age=1e9, store_first=True)
    outbox.open([], required=True)
    there = link()
    if not begun:  # the disk is busy with another one
        first = asyncio.create_task(outbox.secure(delivery_of(there, result(0))))
        await asyncio.to_thread(disk.writing.wait)
    delivering = asyncio.create_task(outbox.deliver(delivery_of(there, result(1))))
    if begun:
        await asyncio.to_thread(disk.writing.wait)
    else:
        await asyncio.sleep(0.05)
    delivering.cancel()
    await asyncio.wait({delivering})
    disk.go.set()
    await asyncio.to_thread(outbox.close)
    if not begun:
        await first
    with contextlib.closing(sqlite3.connect(disk.path)) as connection:
        rows = connection.execute("SELECT task_id FROM waiting WHERE task_id = 't1'").fetchall()
    assert rows == [("t1",)]


def test_two_threads_may_report_a_disk_that_fails_and_works_again(switching_often, caplog):
    caplog.set_level("CRITICAL", "avtomatika_worker")
    keeper, errors = Store(None), []

    def report():
        try:
            for _ in range(150_000):
                keeper._failed(StoreError("the disk is full"))  # noqa: SLF001 - what `keep` does, without the disk
                keeper._recovered()  # noqa: SLF001
        except TypeError as error:
            errors.append(error)

    threads = [threading.Thread(target=report) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
