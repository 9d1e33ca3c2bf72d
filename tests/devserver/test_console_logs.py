"""The logs that the console keeps."""

from __future__ import annotations

import logging
import threading

import pytest

from avtomatika_worker.devserver import TaskLogs
from avtomatika_worker.observability.log_context import log_context


@pytest.fixture
def logs() -> TaskLogs:
    return TaskLogs()


@pytest.fixture
def logger(logs: TaskLogs) -> logging.Logger:
    logger = logging.Logger("console-logs-test", logging.DEBUG)
    logger.addHandler(logs)
    return logger


def test_records_are_kept_by_the_job_they_belong_to(logs: TaskLogs, logger: logging.Logger) -> None:
    with log_context(job_id="j1", task_id="t1"):
        logger.info("of %s", "one")
    with log_context(job_id="j2", task_id="t2"):
        logger.warning("of two")
    logger.info("of nobody")
    assert [(line["text"], line["level"], line["task_id"]) for line in logs.of("j1")] == [("of one", "INFO", "t1")]
    assert [line["text"] for line in logs.of("j2")] == ["of two"]
    assert [line["text"] for line in logs.of("")] == ["of nobody"]
    assert logs.of("j3") == []


def test_a_record_comes_with_its_traceback(logs: TaskLogs, logger: logging.Logger) -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logger.exception("it failed")
    (line,) = logs.of("")
    assert line["text"].startswith("it failed\nTraceback")
    assert line["text"].endswith("RuntimeError: boom")


def test_what_is_new_is_returned_once(logs: TaskLogs, logger: logging.Logger) -> None:
    logger.info("first")
    seen = logs.newest
    assert logs.after(seen) == []
    logger.info("second")
    assert [line["text"] for line in logs.after(seen)] == ["second"]


def test_of_very_many_records_and_jobs_the_latest_are_kept(logs: TaskLogs, logger: logging.Logger) -> None:
    for number in range(600):
        with log_context(job_id=f"j{number}"):
            logger.info("of job %d", number)
    for number in range(600):
        logger.info("line %d", number)
    logger.info("%s", "x" * 100_000)
    assert logs.of("j0") == []
    assert len(logs.of("j599")) == 1
    lines = logs.of("")
    assert len(lines) == 500
    assert lines[0]["text"] == "line 101"
    assert len(lines[-1]["text"]) < 21_000


def test_threads_lose_no_record(logs: TaskLogs, logger: logging.Logger) -> None:
    def write() -> None:
        for number in range(100):
            logger.info("%d", number)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [line["number"] for line in logs.of("")]
    assert numbers == list(range(1, 401))
