"""``worker run``."""

from __future__ import annotations

import os
from typing import NoReturn

from avtomatika_worker._signals import end_well, hear_signals
from avtomatika_worker.cli.reload import reload_command
from avtomatika_worker.cli.worker_app import UsageProblem, load_app, load_settings, read_dotenv
from avtomatika_worker.config import read_setting
from avtomatika_worker.config.kinds import PerDevice
from avtomatika_worker.errors import ConfigError


def run_command(
    app: str | None, *, health_check: bool, reload: bool, workers: int | PerDevice | None, member: str | None
) -> NoReturn:
    """Run the worker that ``app`` names, or is found without it, or several processes of it."""
    hear_signals(end_well)
    if member is not None:
        from avtomatika_worker.cli.workers import run_member

        run_member(app, member, workers)
    environ = dict(os.environ)  # each process reads the .env file itself; it may have changed by then
    read_dotenv()
    count = workers or _from_environment()
    if reload and count != 1:
        source = "--workers" if workers else "WORKER_PROCESSES"
        asked = "some on each GPU" if isinstance(count, PerDevice) else count
        raise UsageProblem(f"--reload runs one process, {source} asks for {asked}: leave one of them out")
    if reload:
        reload_command()
    if count != 1:
        from avtomatika_worker.cli.workers import run_workers

        run_workers(app, count, environ, health_check=health_check)
    worker = load_app(app)
    worker.run_with(load_settings(worker), health_check=health_check)


def _from_environment() -> int | PerDevice:
    try:
        count: int | PerDevice = read_setting(os.environ, "processes")
    except ConfigError as error:
        raise UsageProblem(str(error)) from error
    return count
