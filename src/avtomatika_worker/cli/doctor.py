"""``worker doctor``: checks everything a worker needs, and says how to fix each problem."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import platformdirs

from avtomatika_worker._extras import install_hint
from avtomatika_worker._version import __version__
from avtomatika_worker.cli import terminal
from avtomatika_worker.cli.doctor_orchestrators import examine
from avtomatika_worker.cli.doctor_store import examine_store
from avtomatika_worker.cli.findings import (
    Finding,
    Section,
    error,
    note,
    ok,
    print_json,
    print_section,
    print_summary,
    warning,
    worst,
)
from avtomatika_worker.cli.worker_app import AppNotFoundError, UsageProblem, load_app, read_dotenv
from avtomatika_worker.compat.former_environment import hints
from avtomatika_worker.config import ResultDurability, Settings, unknown_variables
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.files.ownership import check_private
from avtomatika_worker.skills.time_limits import too_short
from avtomatika_worker.worker import Worker
from avtomatika_worker.worker.file_settings import store_settings, task_files_directory
from avtomatika_worker.worker.program import USAGE_ERRORS

_LITTLE_SPACE: Final = 200 * 2**20
_METRICS: Final = "opentelemetry"


def doctor_command(app: str | None, *, as_json: bool, own_id: bool) -> None:
    """Check everything; the worst finding sets the exit code."""
    console = terminal.console(highlight=False, quiet=as_json)
    sections: list[Section] = []
    for section in _sections(app, own_id=own_id):
        print_section(section, console)
        sections.append(section)
    if as_json:
        print_json(sections)
    print_summary(sections, console)
    sys.exit(worst(sections).exit_code)


def _sections(app: str | None, *, own_id: bool) -> Iterator[Section]:
    """Check one thing after another; each is printed before the next check, which may be slow, begins."""
    read_dotenv()
    worker, found = _find_worker(app)
    settings, problems = _read_settings(worker or Worker())
    yield Section("Configuration", problems)
    if settings is None:
        yield Section("Skills", found)
        return
    yield Section("Skills", (*found, *_skills(worker, settings)))
    yield Section("This machine", tuple(_machine(settings)))
    yield Section("Files", asyncio.run(examine_store(store_settings(settings))))
    for orchestrator in settings.orchestrators:
        findings = asyncio.run(examine(orchestrator, settings, own_id=own_id))
        yield Section(f"Orchestrator {orchestrator.url}", findings)


# ---------------------------------------------------------------------------------------------------- configuration


def _find_worker(app: str | None) -> tuple[Worker | None, tuple[Finding, ...]]:
    try:
        return load_app(app), ()
    except AppNotFoundError as problem:
        return None, (note(f"not checked: {problem.message}"),)
    except UsageProblem as problem:
        return None, (error(problem.message, "fix it; a traceback, if there is one, is above"),)


def _read_settings(worker: Worker) -> tuple[Settings | None, tuple[Finding, ...]]:
    try:
        settings = worker.load_settings(os.environ)
    except ConfigError as problem:
        advice = "docs/configuration.md lists every variable"
        return None, tuple(error(each, advice) for each in problem.problems)
    return settings, tuple(_configuration(settings))


def _configuration(settings: Settings) -> Iterator[Finding]:
    yield ok(f"avtomatika-worker {__version__}, Python {sys.version.split()[0]}; every setting is valid")
    for text in unknown_variables(os.environ):
        yield warning(text, "rename it, or remove it: it has no effect")
    for text in hints(os.environ):
        what, _, advice = text.partition(": ")
        yield warning(what, advice)
    if settings.worker_id_is_random:
        advice = "set WORKER_ID, so that undelivered results are found again after a restart"
        yield warning("WORKER_ID is not set: every start is a new worker", advice)
    if not all(each.token for each in settings.orchestrators):
        yield warning(
            "an orchestrator has no token, so messages to it are not signed",
            "set WORKER_TOKEN to the orchestrator's; it refuses a worker without one, unless it checks nothing",
        )
    plain = [each.url for each in settings.orchestrators if each.url.startswith("http:") and not _is_local(each.url)]
    for url in plain:
        yield warning(f"{url}: the token travels without encryption", "use https://, unless the network is private")
    if settings.enable_metrics and not _installed(_METRICS):
        yield error("WORKER_ENABLE_METRICS is on, and OpenTelemetry is not installed", install_hint("metrics"))


def _is_local(url: str) -> bool:
    return any(url.startswith(f"http://{host}") for host in ("localhost", "127.", "[::1]"))


def _installed(module: str) -> bool:
    return find_spec(module) is not None


def _skills(worker: Worker | None, settings: Settings) -> Iterator[Finding]:
    if worker is None:
        return
    try:
        worker.load_skills(settings)
    except USAGE_ERRORS as problem:
        for text in problem.problems if isinstance(problem, ConfigError) else (str(problem),):
            yield error(text, "the worker does not start with it; fix it there")
        return
    names = worker.skills.names()
    if names:
        yield ok(f"{len(names)} can be run: {', '.join(names)}")
    else:
        yield warning("the worker has no skills: it gets no tasks", "decorate a function with @worker.skill")
    for text in too_short(worker.skills, settings.orchestrator_task_limit):
        yield warning(text, "docs/howto/long-tasks.md says what to set")


# ---------------------------------------------------------------------------------------------------- machine


def _machine(settings: Settings) -> Iterator[Finding]:
    yield _port(settings)
    if settings.result_durability is ResultDurability.OFF:
        yield note("results are not kept on disk (WORKER_RESULT_DURABILITY=off): a crash loses those not yet delivered")
    else:
        directory = settings.state_dir or platformdirs.user_state_path("avtomatika-worker", appauthor=False)
        yield from _directory("WORKER_STATE_DIR", directory)
    yield from _directory("TASK_FILES_DIR", task_files_directory(settings))


def _port(settings: Settings) -> Finding:
    host, port = settings.health_host, settings.port
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return ok(f"the health server can listen at {host}:{port}")
    except OSError as problem:
        reason = problem.strerror or str(problem)
        advice = "set WORKER_PORT or WORKER_HEALTH_HOST, or check whether the worker is already running here"
        return error(f"the health server cannot listen at {host}:{port}: {reason.lower()}", advice)


def _directory(variable: str, directory: Path) -> Iterator[Finding]:
    """Check whether files can be created there; for a missing directory, check the nearest parent."""
    try:
        check_private(directory)
    except OSError as problem:
        yield error(
            f"{directory} is refused: {problem.strerror or problem}", f"set {variable} to a directory this user owns"
        )
        return
    place = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            file.write(b"probe")
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        yield error(f"{directory} cannot be written: {place}: {reason}", f"set {variable} to a writable directory")
        return
    free = shutil.disk_usage(place).free
    text = f"{directory} can be written, {free / 2**30:.1f} GiB free ({variable})"
    if free < _LITTLE_SPACE:
        yield warning(text, f"make room, or set {variable} to a larger disk")
    else:
        yield ok(text)
