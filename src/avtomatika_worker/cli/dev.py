"""``worker dev``: the worker together with the embedded orchestrator."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import json
import logging
import secrets
import shlex
import shutil
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from avtomatika_worker._signals import end_well, hear_signals
from avtomatika_worker._waiting import first_of
from avtomatika_worker.cli.dev_log import DevLogFormatter, short_id
from avtomatika_worker.cli.examples import valid_example
from avtomatika_worker.cli.kept import Address, former_address, keep_address
from avtomatika_worker.cli.production_limits import warn_of_production_limits
from avtomatika_worker.cli.reload import reload_command
from avtomatika_worker.cli.terminal import echo
from avtomatika_worker.cli.worker_app import UsageProblem, load_app, load_settings, load_skills
from avtomatika_worker.config import Settings
from avtomatika_worker.devserver import (
    PRODUCTION_LIKE,
    Console,
    EmbeddedOrchestrator,
    FileRoom,
    JobRecord,
    JobState,
    TaskLogs,
)
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.observability.host import listener_at
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.protocol.dialects import NEWEST, choose
from avtomatika_worker.skills.contract import SkillContract
from avtomatika_worker.skills.uri_params import PATHS, URIS, mentions
from avtomatika_worker.supervisor import Ending
from avtomatika_worker.worker import Worker
from avtomatika_worker.worker.file_settings import with_own_files
from avtomatika_worker.worker.program import longest_shutdown, run_process
from avtomatika_worker.worker.thread import WorkerThread

_SHOWN: Final = 3
"""The most running tasks that are named when a shutdown waits for them."""

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
    if reload:
        reload_command()
    worker = load_app(app)
    former = former_address()
    token = token or (former.token if former is not None else secrets.token_urlsafe(16))
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
    file_room = FileRoom(root, as_uris=importlib.util.find_spec("obstore") is not None)
    console = Console(logs=logs, file_room=file_room, contracts=worker.skills.contracts())
    try:
        orchestrator = EmbeddedOrchestrator(
            PRODUCTION_LIKE if production_like else None,
            version=protocol or NEWEST.version,
            host=host,
            port=port or (former.port if former is not None else 0),
            token=token,
            secret_key=settings.orchestrators[0].secret_key,
            console=console,
        )
    except ValueError as error:
        directory.cleanup()
        raise UsageProblem(f"--protocol: {error}") from error
    session = _Session(worker, with_own_files(settings, root), orchestrator, directory, former)
    run_process(session, session.main)


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
        former: Address | None,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._orchestrator = orchestrator
        self._directory = directory
        self._former = former
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
        running = [each for each in self._orchestrator.jobs.values() if self._is_ours(each)]
        if running and (text := waits_for(running, self._settings.shutdown_timeout, self._asked)):
            echo(text, err=True)
        if self._thread is not None:
            self._thread.request_shutdown()

    def _is_ours(self, job: JobRecord) -> bool:
        return job.state is JobState.RUNNING and job.worker_id == self._settings.worker_id

    async def main(self) -> None:
        """Run both until the worker ends."""
        with self._directory:
            await self._run()

    async def _run(self) -> None:
        try:
            await self._orchestrator.start()
        except OSError as error:
            port = self._orchestrator.port
            owner = listener_at(port) if error.errno == errno.EADDRINUSE else None
            reason = f"--port {port}: the embedded orchestrator cannot listen: {(error.strerror or str(error)).lower()}"
            by = f" by {owner}" if owner else ""
            raise ConfigError([f"{reason}{by}; choose another --port or --host"]) from error
        try:
            settings = replace(self._settings, orchestrator_url=self._orchestrator.url)  # now the port is known
            self._thread = WorkerThread(self._worker, settings)
            self._thread.start()
            if self._stopping:
                self._thread.request_shutdown()
            ended = self._thread.ended()
            if await self._registered(ended):
                self._greet(settings)
            if self._orchestrator.settings.rate_limits is None:
                await first_of(partial(asyncio.wait, {ended}), partial(warn_of_production_limits, self._orchestrator))
            await ended
        finally:
            await self._orchestrator.stop()

    def _greet(self, settings: Settings) -> None:
        """Write the banner; after a reload at the same address, only what may have changed."""
        address = Address(self._orchestrator.port, settings.orchestrators[0].token or "")
        if address == self._former:
            echo(skills_line(self._worker))
        else:
            echo(banner(self._worker, settings, self._orchestrator.console_url))
        keep_address(address)

    async def _registered(self, ended: asyncio.Future[None]) -> bool:
        """Wait until the worker is registered; return False if it ends first."""
        registered = False

        async def registering() -> None:
            nonlocal registered
            registered = bool(await self._orchestrator.wait_for_worker(timeout=30))

        await first_of(registering, partial(asyncio.wait, {ended}))
        return registered


def waits_for(running: Sequence[JobRecord], seconds: float, times: int) -> str:
    """Return what a shutdown waits for, and what another Ctrl+C does; empty if nothing more can be said."""
    shown = ", ".join(f"{short_id(job.job_id)} {job.skill}" for job in running[:_SHOWN])
    more = f" and {len(running) - _SHOWN} more" if len(running) > _SHOWN else ""
    what = f"{len(running)} running {'task' if len(running) == 1 else 'tasks'}: {shown}{more}"
    match times:
        case 1:
            return f"\n  Waiting at most {seconds:g} s for {what}. Ctrl+C again cancels.\n"
        case 2:
            return f"\n  Cancelling {what}. Ctrl+C again ends the program at once.\n"
        case _:
            return ""


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
