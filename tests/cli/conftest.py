"""The ``worker`` command as a process in a project's directory."""

import subprocess
import sys

import pytest


@pytest.fixture
def command(tmp_path):
    """Run ``worker …`` in the test's directory: what it printed and its exit code are in what is returned."""

    def run(*arguments, stdin="", **environment):
        return subprocess.run(
            [sys.executable, "-m", "avtomatika_worker.cli", *arguments],
            cwd=tmp_path,
            env={"PATH": "", "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONUTF8": "1", **environment},
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    return run
