"""``worker run``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from avtomatika_worker.cli.app import UsageProblem, load_app, load_settings


def run_command(app: str, *, health_check: bool, reload: bool) -> None:
    """Run the worker ``app`` names."""
    if reload:
        watch([a for a in sys.argv[1:] if a != "--reload"])
        return
    worker = load_app(app)
    worker.run_with(load_settings(worker), health_check=health_check)


def watch(arguments: list[str]) -> None:
    """Run this command with ``arguments`` in a process of its own, anew whenever a Python file changes."""
    try:
        from watchfiles import PythonFilter, run_process
    except ImportError:
        raise UsageProblem('--reload needs watchfiles: pip install "avtomatika-worker[dev]"') from None
    command = shlex.join([sys.executable, "-m", "avtomatika_worker.cli", *arguments])
    run_process(
        Path.cwd(),
        target=command,
        target_type="command",
        watch_filter=PythonFilter(extra_extensions=(".env",)),
        sigint_timeout=10,
    )
