"""Context on every record, the two formats, and what logging leaves alone."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.observability import (
    TaskContextFilter,
    bind_log_context,
    configure_logging,
    current_log_context,
    log_context,
    reset_log_context,
)
from avtomatika_worker.observability.logging import TASK_FINISHED, TracebackLogger

user_code = logging.getLogger("somebody.elses.library")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def global_logging_as_before() -> Iterator[None]:
    root, access = logging.getLogger(), logging.getLogger("aiohttp.access")
    handlers, level, access_level = list(root.handlers), root.level, access.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    access.setLevel(access_level)
    logging.captureWarnings(False)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def one(stream: io.StringIO) -> dict[str, Any]:
    (record,) = records(stream)
    return record


async def test_concurrent_tasks_do_not_see_each_others_context(stream: io.StringIO) -> None:
    configure_logging("json", stream=stream)
    both = asyncio.Barrier(2)

    async def task(task_id: str) -> None:
        with log_context(task_id=task_id, job_id=f"job-{task_id}"):
            await both.wait()
            user_code.info(task_id)
            await both.wait()
        user_code.info("after")

    with log_context(worker_id="w"):
        await asyncio.gather(task("1"), task("2"))
    got = [(each["message"], each["worker_id"], each.get("task_id"), each.get("job_id")) for each in records(stream)]
    assert sorted(got, key=str) == [
        ("1", "w", "1", "job-1"),
        ("2", "w", "2", "job-2"),
        ("after", "w", None, None),
        ("after", "w", None, None),
    ]


async def test_threads_that_get_a_copy_of_the_context_log_with_it(stream: io.StringIO) -> None:
    configure_logging("json", stream=stream)
    with log_context(task_id="t1"):
        await asyncio.to_thread(user_code.info, "in a thread")
    assert one(stream)["task_id"] == "t1"


def test_a_pool_thread_keeps_nothing_for_the_next_task(stream: io.StringIO) -> None:
    configure_logging("json", stream=stream)
    with ThreadPoolExecutor(1) as pool:
        with log_context(task_id="t1"):
            pool.submit(copy_context().run, user_code.info, "first").result()
        pool.submit(copy_context().run, user_code.info, "second").result()
    assert [each.get("task_id") for each in records(stream)] == ["t1", None]


def test_a_thread_without_context_still_names_the_worker(stream: io.StringIO) -> None:
    configure_logging("json", stream=stream, worker_id="w")
    with log_context(worker_id="other"):
        user_code.info("inside")
    thread = threading.Thread(target=user_code.info, args=("bare",))
    thread.start()
    thread.join()
    assert [each["worker_id"] for each in records(stream)] == ["other", "w"]


def test_inner_context_adds_to_the_outer_and_ends_with_its_block_even_on_errors() -> None:
    with log_context(worker_id="w", task_id="t1"):
        with contextlib.suppress(RuntimeError), log_context(task_id="t2"):
            assert current_log_context() == {"worker_id": "w", "task_id": "t2"}
            raise RuntimeError
        assert current_log_context() == {"worker_id": "w", "task_id": "t1"}
    assert current_log_context() == {}


def test_binding_can_be_undone() -> None:
    token = bind_log_context(worker_id="w")
    assert current_log_context() == {"worker_id": "w"}
    reset_log_context(token)
    assert current_log_context() == {}


def test_an_embedding_program_adds_the_filter_to_its_own_handler(stream: io.StringIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(worker_id)s|%(task_id)s|%(job_id)s|%(message)s"))
    handler.addFilter(TaskContextFilter(worker_id="w"))
    logging.getLogger().addHandler(handler)
    with log_context(task_id="t", job_id="j"):
        user_code.warning("one")
    user_code.warning("two")
    user_code.warning("three", extra={"task_id": "its own"})
    assert stream.getvalue().splitlines() == ["w|t|j|one", "w|||two", "w|its own||three"]


def test_importing_the_package_touches_no_logger() -> None:
    program = (
        "import logging; before = logging.getLogger().handlers[:], logging.getLogger().level, logging.lastResort\n"
        "import avtomatika_worker.observability, avtomatika_worker.config\n"
        "assert before == (logging.getLogger().handlers, logging.getLogger().level, logging.lastResort)\n"
        "assert logging.getLogger('aiohttp.access').level == logging.NOTSET\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_json_record_has_its_fields_in_order(stream: io.StringIO) -> None:
    configure_logging("json", stream=stream, worker_id="w")
    record = logging.makeLogRecord(
        {
            "name": "x.y",
            "levelno": logging.INFO,
            "levelname": "INFO",
            "msg": "got %s",
            "args": ("it",),
            "created": 1_700_000_000.25,
            "action": "task_finished",
            "seconds": 1.5,
        }
    )
    with log_context(task_id="t", job_id="j"):
        logging.getLogger().handle(record)
    assert list(one(stream).items()) == [
        ("timestamp", "2023-11-14T22:13:20.250Z"),
        ("level", "INFO"),
        ("logger", "x.y"),
        ("message", "got it"),
        ("action", "task_finished"),
        ("worker_id", "w"),
        ("task_id", "t"),
        ("job_id", "j"),
        ("seconds", 1.5),
    ]


@pytest.mark.parametrize("value", [float("nan"), {("a", 1): 2}, {1, 2}, b"\xff", "\ud800", object], ids=repr)
def test_any_extra_makes_a_line_of_valid_json(stream: io.StringIO, value: object) -> None:
    configure_logging("json", stream=stream)
    user_code.warning("odd\nvalue", extra={"odd": value})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    (line,) = stream.getvalue().splitlines()
    record = json.loads(line, parse_constant=refuse)
    assert record["message"] == "odd\nvalue"
    assert "odd" in record


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_exceptions_come_with_their_traceback(stream: io.StringIO, log_format: Any) -> None:
    configure_logging(log_format, stream=stream)
    try:
        raise ValueError("of no use")
    except ValueError:
        user_code.exception("failed")
    shown = one(stream)["exception"] if log_format == "json" else stream.getvalue()
    assert "Traceback" in shown
    assert "ValueError: of no use" in shown


def test_a_text_line_has_time_level_logger_message_and_context(stream: io.StringIO) -> None:
    configure_logging("text", stream=stream, worker_id="w")
    with log_context(task_id="t1", job_id="j1"):
        logging.getLogger("avtomatika_worker.link.link").warning("got %d", 3)
    logging.getLogger("avtomatika_workers").info("theirs")
    lines = stream.getvalue().splitlines()
    assert [line[2] + line[5] for line in lines] == ["::", "::"]
    assert [line[8:] for line in lines] == [
        " WARN  worker.link.link  got 3  task=t1 job=j1",
        " INFO  avtomatika_workers  theirs",
    ]


@given(message=st.text(), task_id=st.text())
def test_only_our_own_lines_start_at_the_margin_whatever_is_logged(message: str, task_id: str) -> None:
    stream = io.StringIO(newline="")
    configure_logging("text", stream=stream)
    with log_context(task_id=task_id):
        user_code.warning("%s", message)
    # Terminals start lines at more than line feeds; splitlines knows what they are.
    first, *rest = stream.getvalue().splitlines()
    assert " WARN  somebody.elses.library  " in first
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in stream.getvalue()


def test_control_characters_are_shown_escaped(stream: io.StringIO) -> None:
    configure_logging("text", stream=stream)
    user_code.warning("a\rb\x1b[31mc\td")
    assert stream.getvalue().endswith("  a\\rb\\x1b[31mc\td\n")


def test_a_terminal_gets_colors_unless_configured_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def shown(target: io.StringIO) -> str:
        configure_logging("text", stream=target)
        user_code.error("x")
        return target.getvalue()

    assert "\x1b[31mERROR" in shown(Terminal())
    assert "\x1b" not in shown(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(Terminal())


def test_configuring_again_replaces_only_our_own_handler(stream: io.StringIO) -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    configure_logging("text", stream=io.StringIO())
    configure_logging("json", "WARNING", stream)
    user_code.info("too low")
    user_code.warning("once")
    assert one(stream)["message"] == "once"
    assert other in logging.getLogger().handlers


def test_access_records_are_quiet_even_at_debug(stream: io.StringIO) -> None:
    configure_logging("json", "DEBUG", stream)
    logging.getLogger("aiohttp.access").info("GET /health")
    assert records(stream) == []


def test_warnings_are_records_too(stream: io.StringIO) -> None:
    configure_logging("json", stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        configure_logging("json", stream=stream)
        warnings.warn("old", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "UserWarning: old" in one(stream)["message"]


@pytest.mark.parametrize(("log_format", "level"), [("xml", "INFO"), ("text", "LOUD")])
def test_wrong_arguments_change_nothing(log_format: Any, level: str) -> None:
    before = list(logging.getLogger().handlers)
    with pytest.raises(ValueError):
        configure_logging(log_format, level)
    assert logging.getLogger().handlers == before


class Writes(io.StringIO):
    """A stream that knows what was written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[list[str]] = []

    def write(self, text: str, /) -> int:
        self.writes.append([json.loads(line)["message"] for line in text.splitlines()])
        return super().write(text)


def finished(name: str) -> None:
    user_code.info(name, extra={"action": TASK_FINISHED})


def test_the_record_of_every_task_is_known_by_its_right_name() -> None:
    listed = (Path(__file__).parents[2] / "docs" / "log-actions.md").read_text("utf-8")  # made from the code
    assert f"`{TASK_FINISHED}`" in listed


async def test_the_ends_of_all_tasks_in_one_turn_of_the_loop_are_written_at_once() -> None:
    stream = Writes()
    configure_logging("json", stream=stream)
    finished("a")
    finished("b")
    assert stream.writes == []
    await asyncio.sleep(0)
    assert stream.writes == [["a", "b"]]
    finished("c")
    await asyncio.sleep(0)
    assert stream.writes == [["a", "b"], ["c"]]


async def test_every_other_record_is_written_at_once_and_in_order() -> None:
    stream = Writes()
    configure_logging("json", stream=stream)
    finished("a")
    user_code.info("b")
    assert stream.writes == [["a", "b"]]
    finished("c")
    await asyncio.to_thread(user_code.warning, "d")
    assert [message for write in stream.writes for message in write] == ["a", "b", "c", "d"]


def test_without_a_loop_the_end_of_a_task_is_written_at_once() -> None:
    stream = Writes()
    configure_logging("json", stream=stream)
    finished("a")
    assert stream.writes == [["a"]]


def test_what_a_loop_did_not_live_to_write_is_written_with_the_next_loops_or_at_the_end() -> None:
    stream = Writes()
    handler = configure_logging("json", stream=stream)

    async def stop_in_the_same_turn() -> None:
        asyncio.get_running_loop().stop()
        finished("a")

    async def another() -> None:
        finished("b")
        await asyncio.sleep(0)

    for end in (lambda: asyncio.run(another()), handler.flush):
        stream.writes.clear()
        loop = asyncio.new_event_loop()
        task = loop.create_task(stop_in_the_same_turn())
        loop.run_forever()
        loop.close()
        assert task.done()
        end()
        assert next(message for write in stream.writes for message in write) == "a"


async def test_a_stream_that_is_no_longer_read_blocks_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    stream = Writes()
    handler = configure_logging("json", stream=stream)
    finished("a")
    stream.close()
    await asyncio.sleep(0)
    logging.getLogger().removeHandler(handler)
    assert "closed file" not in capfd.readouterr().err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_that_is_text_is_written_as_one_of_an_exception(stream: io.StringIO, log_format: Any) -> None:
    configure_logging(log_format, stream=stream)
    log = TracebackLogger(user_code)
    log.log(logging.WARNING, "skill %s failed", ("x",), "Traceback\nValueError: no", extra={"action": "task_failed"})
    log.log(logging.DEBUG, "not written", (), "Traceback", extra={"action": "task_failed"})
    if log_format == "json":
        written = one(stream)
        assert (written["message"], written["exception"]) == ("skill x failed", "Traceback\nValueError: no")
        assert written["action"] == "task_failed"
    else:
        assert stream.getvalue().partition("skill x failed")[2] == "\n    Traceback\n    ValueError: no\n"


def test_it_names_the_line_that_logs(caplog: pytest.LogCaptureFixture) -> None:
    log = TracebackLogger(user_code)
    for traceback in ("", "Traceback"):
        log.log(logging.WARNING, "here", (), traceback, extra={})
    assert {record.funcName for record in caplog.records} == {"test_it_names_the_line_that_logs"}
