"""``worker run --workers N``: the parent process, and each of its members."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import sys
import uuid
from collections.abc import Mapping
from typing import Final, NoReturn

from avtomatika_worker._boundaries import attempted
from avtomatika_worker._signals import ignore_signals
from avtomatika_worker.cli.worker_app import UsageProblem, load_app, load_settings, load_skills
from avtomatika_worker.config import Settings, with_suffix
from avtomatika_worker.config import load_settings as load_from
from avtomatika_worker.config.kinds import PerDevice
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.fleet import Control, Membership, Place, Plan, Ready, run_fleet
from avtomatika_worker.monitoring.health import UNIX_PREFIX
from avtomatika_worker.observability.devices import NoDeviceError, accelerators
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.worker import Worker
from avtomatika_worker.worker.program import EXIT_CRASHED, longest_shutdown, run_process

_log: Final = logging.getLogger("avtomatika_worker.fleet")

_LONGEST_DRAIN: Final = 86_400.0


def run_workers(app: str | None, count: int | PerDevice, environ: Mapping[str, str], *, health_check: bool) -> NoReturn:
    """Keep ``count`` processes running, each started with ``environ``, until a signal stops them."""
    if sys.platform == "win32":
        raise UsageProblem("--workers needs POSIX signals and sockets; start several workers instead")
    _log_like_the_members()
    named = ("--app", app) if app is not None else ()
    number = f"gpu:{count.each}" if isinstance(count, PerDevice) else str(count)
    command = (sys.executable, "-P", "-m", "avtomatika_worker.cli", "run", "--workers", number, *named)
    plan = Plan(command, environ, _places(count), base_id=str(uuid.uuid4()), health_check=health_check)
    code = attempted(lambda: asyncio.run(run_fleet(plan)), _crashed)  # the last boundary: the exit code says so, too
    ignore_signals()
    sys.exit(code)


def _places(count: int | PerDevice) -> tuple[Place, ...]:
    """Return the processes' places. Exits with code 2 if they are to be on devices, and there is none."""
    if isinstance(count, int):
        return tuple(Place(str(number)) for number in range(1, count + 1))
    try:
        devices = accelerators(os.environ)
    except NoDeviceError as error:
        raise UsageProblem(f"there is no GPU for a process (--workers gpu). {error}") from error
    turns = [""] if count.each == 1 else [f"-{number}" for number in range(1, count.each + 1)]
    return tuple(Place(f"{each.label}{turn}", each.environ) for each in devices for turn in turns)


def _crashed(error: Exception) -> int:
    _log.critical("the fleet crashed: this is a bug in it", exc_info=error, extra={"action": "crashed"})
    return EXIT_CRASHED


def run_member(app: str | None, member: str, count: int | PerDevice | None) -> NoReturn:
    """Run one of the processes; ``member`` is the value its fleet passed, ``count`` how many there are."""
    try:
        membership = Membership.parse(member)
        control = Control(membership)
    except (ValueError, OSError) as error:
        raise UsageProblem("--member is for the processes that `worker run --workers` starts; leave it out") from error
    control.start()
    worker = load_app(app)
    settings = _settings(worker, membership)
    load_skills(worker, settings)
    _check_devices(worker, count)
    configure_logging(
        settings.log_format.value,
        settings.log_level.value,
        worker_id=settings.worker_id,
        show_worker=True,
        background=True,
    )
    control.greet(_hello(worker, settings))
    private = dataclasses.replace(settings, health_host=f"{UNIX_PREFIX}{membership.socket}")
    run_process(control, lambda: control.run(worker, lambda: worker.main(private)))


def _settings(worker: Worker, membership: Membership) -> Settings:
    """Return the worker's settings with its number in the id. Exits with code 2 if one is wrong."""
    try:
        return with_suffix(load_settings(worker), membership.suffix, membership.base_id)
    except ConfigError as error:
        raise UsageProblem(str(error)) from error


def _check_devices(worker: Worker, count: int | PerDevice | None) -> None:
    """Exit with code 2 if several processes would each give the same devices to the processes of their skills."""
    if isinstance(count, PerDevice) and count.each == 1:
        return
    for skill in worker.skills:
        if skill.options.gpus is not None:
            gives = f"skill {skill.contract.name!r} has gpus, and several processes would give away the same devices"
            raise UsageProblem(f"{gives}: run one on each (--workers gpu), or a single one")


def _hello(worker: Worker, settings: Settings) -> Ready:
    return Ready(
        worker_id=settings.worker_id,
        health_host=settings.health_host,
        port=settings.port,
        metrics=settings.enable_metrics,
        log_format=settings.log_format.value,
        log_level=settings.log_level.value,
        drain_limit=min(_LONGEST_DRAIN, longest_shutdown(worker.skills, settings)),
    )


def _log_like_the_members() -> None:
    """Set up logs until the first process has reported its settings; it also reports any that are wrong."""
    try:
        settings = load_from(os.environ)
    except ConfigError:
        configure_logging(background=True)
    else:
        configure_logging(settings.log_format.value, settings.log_level.value, background=True)
