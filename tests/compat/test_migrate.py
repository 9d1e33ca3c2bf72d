"""`worker doctor --migrate` reads a project, and names what will differ by file and line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from avtomatika_worker.compat.project_scan import scan

APP = """\
import rxon.models
from avtomatika_worker import Worker, WorkerConfig
from avtomatika_worker.s3 import S3Manager

config = WorkerConfig()
config.IDLE_POLL_DELAY = 1
worker = Worker("a", http_session=None, config=config)


@worker.skill("a")
async def a(params):
    raise ValueError("x")


@worker.task("b")
async def b(params): ...


@worker.skill("c")
async def c(params):
    if params:
        return {"status": "success"}
    return {"status": "needs_review", "data": {}}


@worker.skill("d", output_statuses=["needs_review"])
async def d(params):
    return {"status": "needs_review", "data": {}}
"""


def test_imports_calls_and_settings_are_found_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / ".env").write_text("WORKER_ID=a\nPOLL_BACKOFF_MAX=9\nSECRET_KEY=k\n")
    (tmp_path / "requirements.txt").write_text("avtomatika-worker==1.0b20\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "other.py").write_text(APP)
    found = {(each.file, each.line) for each in scan(tmp_path)}
    assert found == {
        *(("app.py", line) for line in (1, 3, 6, 7, 11, 15, 20)),
        (".env", 2),
        (".env", 3),
        ("requirements.txt", 1),
    }


def test_a_project_for_this_sdk_has_no_findings(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from avtomatika_worker import Worker\nworker = Worker()\n")
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "deep.py").write_text("x = " + "(" * 100_000)
    assert scan(tmp_path) == []


def test_doctor_names_variables_that_have_no_effect_and_those_to_rename(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "avtomatika_worker", "doctor", "--json"]
    environ = {"PATH": "", "HOME": str(tmp_path), "POLL_BACKOFF_MAX": "9", "SECRET_KEY": "k"}
    environ |= {"ORCHESTRATOR_URL": "http://127.0.0.1:9", "WORKER_STATE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert "POLL_BACKOFF_MAX has no effect" in done.stdout
    assert "SECRET_KEY is used as ORCHESTRATOR_SECRET_KEY" in done.stdout


def test_the_command_lists_them_and_warns_by_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    command = [sys.executable, "-m", "avtomatika_worker", "doctor", "--migrate", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "app.py:6: config.IDLE_POLL_DELAY" in done.stdout
