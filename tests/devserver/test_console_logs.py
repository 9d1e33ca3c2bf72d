"""The logs that the console keeps."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest

from avtomatika_worker.devserver import TaskLogs
from avtomatika_worker.observability.log_context import log_context


def shown_path() -> str:
    """This file as the console shows it: relative to the current directory, if it is below it."""
    here = Path(__file__)
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)


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


def test_a_traceback_comes_as_frames_with_the_users_marked(logs: TaskLogs, logger: logging.Logger) -> None:
    try:
        json.loads("{")
    except ValueError:
        logger.exception("it failed")
    (line,) = logs.of("")
    mine, *others = line["frames"]
    assert (mine["file"], mine["source"], mine["yours"]) == (shown_path(), 'json.loads("{")', True)
    assert mine["function"] == "test_a_traceback_comes_as_frames_with_the_users_marked"
    assert others
    assert not any(each["yours"] for each in others)


def test_a_traceback_that_was_written_elsewhere_has_frames_too(logs: TaskLogs, logger: logging.Logger) -> None:
    record = logger.makeRecord("x", logging.ERROR, "x.py", 1, "it failed", (), None)
    record.exc_text = (
        'Traceback (most recent call last):\n  File "old.py", line 1, in old\nKeyError: 1\n\n'
        "During handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "shop.py", line 7, in sell\n    deep(order)\n    ^^^^\n'
        '  File "shop.py", line 3, in deep\nKeyError: 2'
    )
    logger.handle(record)
    (line,) = logs.of("")
    assert [(each["file"], each["line"], each["source"]) for each in line["frames"]] == [
        ("shop.py", 7, "deep(order)"),
        ("shop.py", 3, ""),
    ]


def test_new_records_are_returned_once(logs: TaskLogs, logger: logging.Logger) -> None:
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
