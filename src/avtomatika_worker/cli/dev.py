"""``worker dev``: the worker together with the embedded orchestrator."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import secrets
import shlex
import shutil
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from avtomatika_worker._signals import end_well, hear_signals
from avtomatika_worker._waiting import first_of
from avtomatika_worker.cli.dev_log import DevLogFormatter
from avtomatika_worker.cli.dev_reload import HostLink, SentLogs, cannot_listen, hosted
from avtomatika_worker.cli.dev_shutdown import say_what_is_awaited
from avtomatika_worker.cli.examples import valid_example
from avtomatika_worker.cli.production_limits import warn_of_production_limits
from avtomatika_worker.cli.terminal import echo
from avtomatika_worker.cli.worker_app import UsageProblem, load_app, load_settings, load_skills, read_dotenv
from avtomatika_worker.config import Settings
from avtomatika_worker.devserver import (
    PRODUCTION_LIKE,
    Console,
    EmbeddedOrchestrator,
    FileRoom,
    TaskLogs,
)
from avtomatika_worker.devserver.console.shown_program import Program, announced
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.protocol.dialects import NEWEST, choose
from avtomatika_worker.skills.contract import SkillContract
from avtomatika_worker.skills.uri_params import PATHS, URIS, mentions
from avtomatika_worker.supervisor import Ending
from avtomatika_worker.worker import Worker
from avtomatika_worker.worker.file_settings import with_own_files
from avtomatika_worker.worker.program import longest_shutdown, run_process
from avtomatika_worker.worker.thread import WorkerThread

_NO_SIGNATURES: Final = {"ORCHESTRATOR_SECRET_KEY": "", "REQUIRE_TASK_SIGNATURE": ""}


def dev_command(
    app: str | None,
    *,
    host: str,
    port: int,
    protocol: str | None,
    token: str | None,
    production_like: bool,
    reload: bool,
) -> None:
    """Run both until a signal arrives."""
    hear_signals(end_well)
    if (link := HostLink.from_environment()) is not None:
        _serve_beside(link, app, protocol)
    if reload:
        _host(host, port, protocol, token, production_like=production_like)
    worker = load_app(app)
    token = token or secrets.token_urlsafe(16)
    # A worker with a key refuses every task of a release that does not sign tasks.
    unsigned = {} if choose(protocol or NEWEST.version).dialect.signed_tasks else _NO_SIGNATURES
    # The address is replaced once the port is known.
    settings = load_settings(worker, **local_environment("http://127.0.0.1:1", token), **unsigned)
    load_skills(worker, settings)
    configure_logging(
        settings.log_format.value, settings.log_level.value, worker_id=settings.worker_id, text=DevLogFormatter
    )
    logs = TaskLogs()
    logging.getLogger().addHandler(logs)
    directory = tempfile.TemporaryDirectory(prefix="worker-dev-", ignore_cleanup_errors=True)
    root = settings.file_store_root or Path(directory.name).resolve()
    program = Program(announced(worker.skills.contracts()), lambda: {settings.worker_id: worker.slots_in_use})
    console = Console(logs=logs, file_room=_file_room(root), program=program)
    try:
        orchestrator = EmbeddedOrchestrator(
            PRODUCTION_LIKE if production_like else None,
            version=protocol or NEWEST.version,
            host=host,
            port=port,
            token=token,
            secret_key=settings.orchestrators[0].secret_key,
            console=console,
        )
    except ValueError as error:
        directory.cleanup()
        raise UsageProblem(f"--protocol: {error}") from error
    session = _Session(worker, with_own_files(settings, root), orchestrator, directory)
    run_process(session, session.main)


def _host(host: str, port: int, protocol: str | None, token: str | None, *, production_like: bool) -> NoReturn:
    """Serve the orchestrator, and the worker in process after process."""
    environ = dict(os.environ)  # each process reads the .env file itself; it may have changed by then
    read_dotenv()
    key = os.environ.get("ORCHESTRATOR_SECRET_KEY") or None
    logs, program = TaskLogs(), Program({})
    with tempfile.TemporaryDirectory(prefix="worker-dev-", ignore_cleanup_errors=True) as directory:
        root = Path(os.environ.get("WORKER_FILE_STORE_ROOT") or directory).resolve()
        console = Console(logs=logs, file_room=_file_room(root), program=program)
        try:
            orchestrator = EmbeddedOrchestrator(
                PRODUCTION_LIKE if production_like else None,
                version=protocol or NEWEST.version,
                host=host,
                port=port,
                token=token or secrets.token_urlsafe(16),
                secret_key=key,
                console=console,
            )
        except ValueError as error:
            raise UsageProblem(f"--protocol: {error}") from error
        hosted(orchestrator, program, logs, root, environ)


def _serve_beside(link: HostLink, app: str | None, protocol: str | None) -> NoReturn:
    """Run the worker for the orchestrator of the process that has started this one."""
    unsigned = {} if choose(protocol or NEWEST.version).dialect.signed_tasks else _NO_SIGNATURES
    with link.reporting():
        worker = load_app(app)
        settings = load_settings(worker, **local_environment(link.url, link.token), **unsigned)
        load_skills(worker, settings)
    configure_logging(
        settings.log_format.value, settings.log_level.value, worker_id=settings.worker_id, text=DevLogFormatter
    )
    logging.getLogger().addHandler(SentLogs(link))
    link.send(
        skills=announced(worker.skills.contracts()),
        worker_id=settings.worker_id,
        shutdown_timeout=settings.shutdown_timeout,
    )
    own = with_own_files(settings, settings.file_store_root or link.place)
    link.report_slots(settings.worker_id, lambda: worker.slots_in_use)
    link.when_registered(lambda first: echo(banner(worker, own, link.console_url) if first else skills_line(worker)))
    run_process(worker, lambda: worker.main(own, health_check=False))


def _file_room(root: Path) -> FileRoom:
    return FileRoom(root, as_uris=importlib.util.find_spec("obstore") is not None)


def local_environment(url: str, token: str) -> dict[str, str]:
    """Return the variables that point a worker at an embedded orchestrator, overriding the environment."""
    return {
        "ORCHESTRATOR_URL": url,
        "ORCHESTRATORS_CONFIG": "",
        "WORKER_TOKEN": token,
        "WORKER_INDIVIDUAL_TOKEN": "",
        "WORKER_ENABLE_WEBSOCKETS": "true",
        "WORKER_HEARTBEAT_PROCESS": "",  # whatever blocks the worker blocks the orchestrator too
        "WORKER_RESULT_DURABILITY": "off",  # the orchestrator forgets everything when it ends
    }


class _Session:
    """One run of worker and orchestrator."""

    def __init__(
        self,
        worker: Worker,
        settings: Settings,
        orchestrator: EmbeddedOrchestrator,
        directory: tempfile.TemporaryDirectory[str],
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._orchestrator = orchestrator
        self._directory = directory
        self._thread: WorkerThread | None = None
        self._stopping = False
        self._asked = 0

    @property
    def ending(self) -> Ending:
        """How the worker ended."""
        return self._worker.ending

    @property
    def shutdown_limit(self) -> float:
        """Limit for the shutdown, in seconds."""
        return longest_shutdown(self._worker.skills, self._settings)

    def rescue(self) -> None:
        """Do nothing: the orchestrator forgets everything too."""

    def announce_draining(self) -> None:
        """Announce that the worker is about to shut down."""
        self._worker.announce_draining()

    def request_shutdown(self) -> None:
        """Ask the worker to shut down; the orchestrator follows it."""
        self._asked += 1
        self._stopping = True  # for a worker that has not been created yet
        jobs, own = self._orchestrator.jobs.values(), self._settings
        say_what_is_awaited(jobs, own.worker_id, own.shutdown_timeout, self._asked)
        if self._thread is not None:
            self._thread.request_shutdown()

    async def main(self) -> None:
        """Run both until the worker ends."""
        with self._directory:
            await self._run()

    async def _run(self) -> None:
        try:
            await self._orchestrator.start()
        except OSError as error:
            raise ConfigError([cannot_listen(self._orchestrator.port, error)]) from error
        try:
            settings = replace(self._settings, orchestrator_url=self._orchestrator.url)  # now the port is known
            self._thread = WorkerThread(self._worker, settings)
            self._thread.start()
            if self._stopping:
                self._thread.request_shutdown()
            ended = self._thread.ended()
            if await self._registered(ended):
                echo(banner(self._worker, settings, self._orchestrator.console_url))
            if self._orchestrator.settings.rate_limits is None:
                await first_of(partial(asyncio.wait, {ended}), partial(warn_of_production_limits, self._orchestrator))
            await ended
        finally:
            await self._orchestrator.stop()

    async def _registered(self, ended: asyncio.Future[None]) -> bool:
        """Wait until the worker is registered; return False if it ends first."""
        registered = False

        async def registering() -> None:
            nonlocal registered
            registered = bool(await self._orchestrator.wait_for_worker(timeout=30))

        await first_of(registering, partial(asyncio.wait, {ended}))
        return registered


def banner(worker: Worker, settings: Settings, console_url: str | None = None) -> str:
    """Return the text that shows where to send tasks."""
    url = settings.orchestrators[0].url
    contracts = worker.skills.contracts()
    lines = [
        "",
        f"  Orchestrator for development at {url} (in memory only)",
        f"  Worker {settings.worker_id}",
        f"  Token for workers: {settings.orchestrators[0].token} (as WORKER_TOKEN)",
        skills_line(worker),
    ]
    if console_url is not None:
        lines += ["", f"  Console: {console_url}"]
    if (body := _submission(contracts)) is not None:
        # On two lines, so that it can be copied from a narrow terminal.
        lines += ["", "  Send it a task:", f"    curl '{url}/api/jobs?wait=30' \\", f"      -d {shlex.quote(body)}"]
    return "\n".join([*lines, "", "  Stop with Ctrl+C", ""])


def _submission(contracts: Sequence[SkillContract]) -> str | None:
    """Return a job that is valid, of a skill that needs no file if there is one; None if none can be made."""
    for contract in sorted(contracts, key=lambda each: mentions(each.input_schema or {}, URIS | PATHS)):
        if (params := valid_example(contract.input_schema)) is not None:
            return json.dumps({"skill": contract.name, "params": params})
    return None


def skills_line(worker: Worker) -> str:
    """Return the skills' names, wrapped for the terminal."""
    width = max(40, shutil.get_terminal_size().columns - 2)
    text = f"  Skills: {', '.join(each.name for each in worker.skills.contracts()) or 'none'}"
    lines = textwrap.wrap(text, width, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)
