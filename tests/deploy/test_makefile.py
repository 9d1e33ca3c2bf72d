"""The Makefile: which environment a verb uses, and what it installs there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from needs import needs

ROOT = Path(__file__).resolve().parents[2]
OWN = ".venv-{}.{}{}".format(*sys.version_info[:2], sys.abiflags)

pytestmark = needs("make")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory in which nothing was ever installed."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(project: Path, *arguments: str, code: int = 0) -> str:
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["make", *arguments], cwd=project, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_an_interpreter_that_is_named_gets_an_environment_of_its_own(project):
    python = f"PYTHON={sys.executable}"
    assert f"\n{OWN}/bin/worker demo" in make(project, "-n", "demo", python)
    assert "\n.venv/bin/worker demo" in make(project, "-n", "demo")
    make(project, f"{OWN}/bin/python", python)
    version = subprocess.run([project / OWN / "bin" / "python", "-V"], capture_output=True, text=True, check=True)
    assert version.stdout.split()[1] == sys.version.split()[0]


def test_a_missing_interpreter_is_named_and_no_other_is_used(project):
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(sys.executable)
    output = make(project, "demo", "PYTHON=python9.9", code=2)
    assert "'python9.9' is missing or older" in output
    assert "pip" not in output


@pytest.mark.parametrize(
    ("verb", "installed"),
    [
        ("demo", ["'.[demo]'"]),
        ("test", ["'.[dev]'"]),
        ("check", ["'.[dev]'", "'pip>=25.1'", "--group check"]),
        ("dist", ["'pip>=25.1'", "--group dist"]),
    ],
)
def test_a_verb_installs_what_it_needs_and_no_more(project, verb, installed):
    lines = [line for line in make(project, "-n", verb).splitlines() if " -m pip install " in line]
    assert len(lines) == len(installed)
    assert all(line.endswith(each) for line, each in zip(lines, installed, strict=True))
