"""The console of ``worker dev``: the process, and what its page receives."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

APP = """
import logging
from pathlib import Path
from avtomatika_worker import TaskFiles, Worker
worker = Worker(worker_type="test")

@worker.skill
async def shout(source: Path, files: TaskFiles):
    text = await files.read(source)
    logging.getLogger("my_app").info("shouting %d characters", len(text))
    return {"loud": await files.write("loud.txt", text.upper())}
"""


TEMPORARY = "tmp" + 90 * "p"
"""So long that the path of a Unix socket in it would be too long."""


@pytest.fixture
def dev(tmp_path, request):
    """``worker dev`` once its banner is written: the process and the address of its console."""
    (tmp_path / "my_app.py").write_text(APP, "utf-8")
    (tmp_path / TEMPORARY).mkdir()
    process = subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-m",
            "avtomatika_worker.cli",
            "dev",
            "--app",
            "my_app:worker",
            "--port",
            "0",
            *getattr(request, "param", ()),
        ],
        cwd=tmp_path,
        env={"PATH": "", "XDG_STATE_HOME": str(tmp_path), "TMPDIR": str(tmp_path / TEMPORARY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            lines = iter(process.stdout.readline, "")
            url = next(line.split("Console:")[1].strip() for line in lines if "Console:" in line)
            next(line for line in lines if "Stop with" in line)
            yield process, url
        finally:
            process.terminate()  # with --reload there is another one
            process.wait(30)


def fetch(url, body=None, method=None):
    request = urllib.request.Request(url, body, method=method)  # noqa: S310 - http, as printed
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - http, as printed
        return response.read()


def test_a_task_with_an_uploaded_file_its_logs_and_its_result(dev):
    _, console = dev
    jobs = console.replace("/console/", "/api/jobs")
    value = json.loads(fetch(f"{console}api/files?name=quiet.txt", b"psst"))["value"]
    submitted = fetch(jobs, json.dumps({"skill": "shout", "params": {"source": value}}).encode())
    job_id = json.loads(submitted)["job_id"]
    job = json.loads(fetch(f"{jobs}/{job_id}?wait=30"))
    assert job["state"] == "finished", job["error"]
    record = json.loads(fetch(f"{console}api/jobs/{job_id}"))
    assert "shouting 4 characters" in [line["text"] for line in record["logs"]]
    assert fetch(f"{console}api/file?uri={job['result']['loud']}") == b"PSST"


def whole_state(console):
    """Return what a page gets first."""
    with urllib.request.urlopen(f"{console}api/stream", timeout=30) as stream:  # noqa: S310 - http, as printed
        return next(json.loads(line[6:]) for line in stream if line.startswith(b"data: "))


@pytest.mark.parametrize("dev", [(), ("--reload",)], indirect=True, ids=["one process", "reload"])
def test_the_slots_shown_are_those_that_the_worker_counts(dev):
    _, console = dev
    refused = {"call": "result", "kind": "status", "status": 503, "retry_after": 0.3, "times": 1000}
    fetch(f"{console}api/faults", json.dumps(refused).encode())
    value = json.loads(fetch(f"{console}api/files?name=quiet.txt", b"psst"))["value"]
    body = {"skill": "shout", "params": {"source": value}}
    fetch(console.replace("/console/", "/api/jobs"), json.dumps(body).encode())
    until = time.monotonic() + 30
    while time.monotonic() < until:
        state = whole_state(console)
        [worker] = state["workers"]
        slots = state["figures"]["slots"][-1][1:]
        tried = any(call["call"] == "result" for call in state["calls"])
        if tried and slots == [worker["running"], worker["slots"]] == [0, worker["slots"]]:
            break
    # The orchestrator has no result yet, so to it the task is running; the worker's slot is free again.
    assert [job["state"] for job in state["jobs"]] == ["running"]
    assert (slots, worker["running"]) == ([0, worker["slots"]], 0)
    fetch(f"{console}api/faults", method="DELETE")  # so that it ends soon


def test_nothing_is_left_of_the_files_afterwards(dev, tmp_path):
    process, console = dev
    fetch(f"{console}api/files?name=a.txt", b"x")
    assert [path for path in (tmp_path / TEMPORARY).rglob("a.txt") if path.is_file()]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not [path for path in Path(tmp_path / TEMPORARY).rglob("*") if path.is_file()]
    assert not list((tmp_path / TEMPORARY).glob("worker-dev-*"))
