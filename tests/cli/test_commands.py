"""The ``worker`` command as a process: what a user types, and what happens."""

import json
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

APP = """
from avtomatika_worker import Worker
worker = Worker(worker_type="test")

@worker.skill
async def echo(params: dict):
    return params

def factory():
    return worker

async def later():
    return worker

number = 5
"""


STOPPING = """
import os, signal, threading
def setup(worker):
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "my_app.py").write_text(APP, "utf-8")
    (tmp_path / "broken.py").write_text("import no_such_package_at_all\n", "utf-8")
    (tmp_path / "ending.py").write_text("import sys\nsys.exit(0)\n", "utf-8")
    (tmp_path / "unfillable.py").write_text(
        "from avtomatika_worker import Worker\nworker = Worker()\n@worker.skill\ndef f(params, mystery): ...\n", "utf-8"
    )
    return tmp_path


def worker(project, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "avtomatika_worker.cli", *arguments],
        cwd=project,
        env={"PATH": "", "XDG_STATE_HOME": str(project), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("my_app", "write it as module:attribute"),
        ("nowhere:worker", "no module 'nowhere'"),
        ("my_app:wroker", "it has a Worker called worker"),
        ("my_app:number", "is of type int, not a Worker"),
        ("my_app:later", "async def"),
        ("ending:worker", '__name__ == "__main__"'),
        ("broken:worker", "no_such_package_at_all"),
        ("unfillable:worker", "'mystery'"),
    ],
)
def test_a_wrong_app_is_explained_with_exit_code_2(project, app, message):
    done = worker(project, "run", "--app", app)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("worker: ")
    assert message in last


def test_every_wrong_setting_is_named_at_once_and_secrets_are_not(project):
    done = worker(
        project,
        "run",
        "--app",
        "my_app:worker",
        MAX_CONCURRENT_TASKS="many",
        WORKER_PORT="-1",
        WORKER_TOKEN="hunter2\n x",
        MAX_CONCURENT_TASKS="5",
    )
    assert done.returncode == 2
    assert "did you mean MAX_CONCURRENT_TASKS?" in done.stderr
    assert "MAX_CONCURRENT_TASKS" in done.stderr
    assert "WORKER_PORT" in done.stderr
    assert "hunter2" not in done.stderr


def test_what_no_orchestrator_could_read_is_reported_before_anything_starts(project):
    done = worker(project, "run", "--app", "my_app:worker", WORKER_EXTRA_SERIAL="9" * 30)
    assert done.returncode == 2
    assert "capabilities.extra.serial" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("on_error", "code"), [("stop", 2), ("skip", 0)])
def test_a_setup_that_raises_is_the_skill_modules_mistake(project, on_error, code):
    (project / "skills").mkdir()
    (project / "skills" / "one.py").write_text("def setup(worker):\n    raise RuntimeError('no licence')\n", "utf-8")
    (project / "skills" / "two.py").write_text(STOPPING, "utf-8")
    done = worker(project, "run", "--app", "my_app:worker", "--no-health-check", WORKER_SKILLS_ON_ERROR=on_error)
    assert done.returncode == code, done.stderr
    assert "one.py: its setup(worker) failed: RuntimeError: no licence" in done.stderr
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("app", ["my_app:worker", "my_app:factory"])
def test_a_worker_without_its_orchestrator_keeps_trying_and_stops_on_a_signal(project, app):
    (project / ".env").write_text("WORKER_ID=from-dotenv\nLOG_FORMAT=json\n", "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", app, "--no-health-check"],
        cwd=project,
        env={"PATH": "", "ORCHESTRATOR_URL": "http://127.0.0.1:9", "XDG_STATE_HOME": str(project)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "registration_failed" in line
        assert "from-dotenv" in line
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    assert process.returncode == 0


def test_the_demo_runs_and_ends_well_whatever_the_environment_says(project):
    (project / "skills").mkdir()
    (project / "skills" / "broken.py").write_text("import no_such_package_at_all\n", "utf-8")
    done = worker(project, "demo", "--output", "pictures", COLUMNS="120", MAX_CONCURRENT_TASKS="many")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((project / "pictures").iterdir())) == 4
    assert "INVALID_INPUT_ERROR" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--output", "my_app.py/pictures"], "my_app.py"),
        (["dev", "--app", "my_app:worker", "--protocol", "9.9"], "1.0b7 to 1.0b17 are known"),
        (["dev", "--app", "my_app:worker", "--port", "99999"], "--port"),
        (["dev", "--app", "my_app:worker", "--port", "0", "--host", "192.0.2.77"], "choose another --port or --host"),
    ],
)
def test_wrong_options_are_explained_with_exit_code_2(project, arguments, message):
    done = worker(project, *arguments)
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_dev_says_that_its_port_is_taken(project):
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = worker(project, "dev", "--app", "my_app:worker", "--port", str(server.getsockname()[1]))
    assert done.returncode == 2
    assert "cannot listen" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def read_curl(lines):
    """Return the words of a banner's curl command, as a shell reads them."""
    (start,) = [index for index, line in enumerate(lines) if "curl" in line]
    return shlex.split("".join(lines[start : start + 2]).replace("\\\n", ""))


def test_dev_writes_a_command_that_runs_a_task_and_shows_its_result(project):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "avtomatika_worker.cli", "dev", "--app", "my_app:worker", "--port", "0"],
        cwd=project,
        env={"PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        lines = []
        while "Ctrl+C" not in "".join(lines):
            lines.append(process.stdout.readline())
            assert lines[-1], "dev ended before its banner"
        send = read_curl(lines)
        with urllib.request.urlopen(send[1], data=send[3].encode(), timeout=40) as answer:  # noqa: S310 - http, as printed
            assert json.load(answer)["state"] == "finished"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 0
