"""Logs behind a pipe that nobody reads: who logs never waits, what is lost is counted, and exits are bounded."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.observability import configure_logging
from avtomatika_worker.observability.logging import restore_logging
from avtomatika_worker.observability.writer import FLUSH_TIMEOUT, MOST_WAITING

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")

log = logging.getLogger("somebody")


class Pipe:
    """A pipe, and a handler that writes to it."""

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        self._stream = os.fdopen(writing, "w", encoding="utf-8")
        self.handler = configure_logging("json", stream=self._stream, background=True)

    def read(self, until: str = "") -> list[dict[str, Any]]:
        """Read records, up to one with this message if it is given."""
        data = b""
        while not data.endswith(b"\n") or (until and f'"message": "{until}"'.encode() not in data):
            data += os.read(self._reading, 1 << 20)
        return [json.loads(line) for line in data.splitlines()]

    def close(self) -> None:
        """Hang up, and let the thread end."""
        os.close(self._reading)
        logging.getLogger().removeHandler(self.handler)
        self.handler.close()
        self._stream.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_records_arrive_in_order_from_any_thread(pipe: Pipe) -> None:
    for number in range(100):
        threads = [threading.Thread(target=log.info, args=(f"{number}-{part}",)) for part in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
    log.info("last")
    expected = [f"{number}-{part}" for number in range(100) for part in range(2)]
    assert [record["message"] for record in pipe.read("last")] == [*expected, "last"]


def test_a_single_record_is_written_although_nothing_follows(pipe: Pipe) -> None:
    log.info("alone")
    assert [record["message"] for record in pipe.read("alone")] == ["alone"]


def test_logging_does_not_block_on_a_full_pipe_and_dropped_records_are_counted(pipe: Pipe) -> None:
    count = MOST_WAITING // 1_000 + 200
    for number in range(count):
        log.info("%d", number, extra={"filling": "x" * 1_000})
    got: list[dict[str, Any]] = []
    while not any("were dropped" in record["message"] for record in got):
        log.info("mark")  # there is room again at some time
        got += pipe.read()
    numbers = [int(record["message"]) for record in got if record["message"].isdigit()]
    assert numbers == list(range(len(numbers)))  # the oldest are kept, in order
    report = next(record for record in got if "were dropped" in record["message"])
    assert (report["level"], report["action"]) == ("WARNING", "log_dropped")
    marks = sum(record["message"] == "mark" for record in got)
    assert int(report["message"].split()[0]) >= count - len(numbers) - marks > 0


def test_logging_does_not_block_even_after_a_configuration_closed_all_handlers(pipe: Pipe) -> None:
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # which it does
    restore_logging()
    filling = threading.Thread(target=log.info, args=("x" * 1_000_000,), daemon=True)
    filling.start()
    filling.join(10)
    assert not filling.is_alive()
    restored = logging.getLogger().handlers[-1]
    logging.getLogger().removeHandler(restored)
    pipe.read()
    restored.close()


def test_a_flush_waits_for_what_is_read_and_not_for_what_is_not(pipe: Pipe) -> None:
    log.info("x" * 200_000)
    reader = threading.Thread(target=pipe.read, args=("end",))
    began = time.monotonic()
    pipe.handler.flush()
    assert time.monotonic() - began >= FLUSH_TIMEOUT * 0.9
    log.info("end")
    reader.start()
    pipe.handler.flush()
    reader.join()


def test_a_forked_process_logs_too(pipe: Pipe) -> None:
    program = (
        "import logging, os, sys; from avtomatika_worker.observability import configure_logging as c\n"
        "c('text', background=True); logging.warning('parent'); pid = os.fork()\n"
        "logging.warning('child') if pid == 0 else os.waitpid(pid, 0)\n"
        "os._exit(0) if pid == 0 else None\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]  # from 3.12 on Python warns of a fork beside threads
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert (ran.stderr.count("parent"), ran.stderr.count("child")) == (1, 1)


def test_what_was_logged_last_is_written_at_every_exit() -> None:
    for end in ("", "sys.exit(0)", "from avtomatika_worker._atexit import exit_at_once; exit_at_once(0)", "1 / 0"):
        program = "import logging, sys; from avtomatika_worker.observability import configure_logging as c\n"
        program += f"c('text', background=True); logging.warning('x' * 100_000); logging.warning('last words')\n{end}"
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
        assert "last words" in ran.stderr


APP = """
import logging
from avtomatika_worker import Worker

worker = Worker()

@worker.skill
async def talk(count: int) -> None:
    for _ in range(count):
        logging.warning("x" * 10_000)
"""


@pytest.fixture
async def orchestrator() -> AsyncIterator[EmbeddedOrchestrator]:
    async with EmbeddedOrchestrator(poll_time=1.0) as started:
        yield started


@pytest.mark.parametrize("extra", [[], ["--workers", "2"]])
async def test_a_worker_whose_log_nobody_reads_goes_on_and_ends(
    orchestrator: EmbeddedOrchestrator, tmp_path: Path, extra: list[str]
) -> None:
    (tmp_path / "app.py").write_text(APP, "utf-8")
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes milliseconds, in a test
        [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "app:worker", "--no-health-check", *extra],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=tmp_path,
        env={
            **os.environ,
            "ORCHESTRATOR_URL": orchestrator.url,
            "WORKER_TOKEN": orchestrator.token,
            "WORKER_ID": "w",
            "HEARTBEAT_INTERVAL": "0.5",
            "WORKER_STATE_DIR": str(tmp_path / "state"),
        },
    )
    try:
        await orchestrator.wait_for(lambda: len(orchestrator.workers) == (2 if extra else 1), timeout=30)
        for _ in range(4):
            job = orchestrator.submit("talk", {"count": 100})
            await orchestrator.wait_for(lambda job=job: job.state.final, timeout=20)
            assert job.state.value == "finished"
        beats = len([call for call in orchestrator.requests if call.call == "heartbeat"])
        await orchestrator.wait_for(
            lambda: len([call for call in orchestrator.requests if call.call == "heartbeat"]) > beats + 2, timeout=20
        )
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
