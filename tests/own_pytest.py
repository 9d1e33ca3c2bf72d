"""Runs tests of a project of its own with a pytest of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

PLAIN: Final = tuple(
    text for name in ("cacheprovider", "hypothesispytest", "schemathesis", "valkey") for text in ("-p", f"no:{name}")
)
"""Options without the plugins that our own tests bring along: importing them takes longer than most such tests."""

LOOPS: Final = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")


def example_output(directory: Path, *options: str, timeout: float = 60) -> str:
    """Return what pytest prints of an example, whose tests must pass."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, *PLAIN, *LOOPS, *options, "."],
        cwd=directory,
        env={"PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
