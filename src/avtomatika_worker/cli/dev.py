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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from avtomatika_worker._signals import end_well, hear_signals
from avtomatika_worker._waiting import first_of
from avtomatika_worker.cli.production_limits import warn_of_production_limits
from avtomatika_worker.cli.reload import reload_command
from avtomatika_worker.cli.terminal import echo
from avtomatika_worker.cli.worker_app import UsageProblem, load_app, load_settings, load_skills
from avtomatika_worker.config import Settings
from avtomatika_worker.devserver import PRODUCTION_LIKE, Console, EmbeddedOrchestrator, FileRoom, TaskLogs
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.observability.host import listener_at
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.protocol.dialects import NEWEST, choose
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
    if reload:
        reload_command()
    worker = load_app(app)
    token = token or secrets.token_urlsafe(16)
    # A worker with a key refuses every task of a release that does not sign tasks.
    unsigned = {} if choose(protocol or NEWEST.version).dialect.signed_tasks else _NO_SIGNATURES
    # The address is replaced once the port is known.
    settings = load_settings(worker, **local_environment("http://127.0.0.1:1", token), **unsigned)
    load_skills(worker, settings)
    configure_logging(settings.log_format.value, settings.log_level.value, worker_id=settings.worker_id)
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
        self._stopping = True  # for a worker that has not been created yet
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
        *_skills([contract.name for contract in contracts]),
    ]
    if console_url is not None:
        lines += ["", f"  Console: {console_url}"]
    if contracts:
        body = json.dumps({"skill": contracts[0].name, "params": example(contracts[0].input_schema or {}) or {}})
        # On two lines, so that it can be copied from a narrow terminal.
        lines += ["", "  Send it a task:", f"    curl {url}/api/jobs \\", f"      -d {shlex.quote(body)}"]
        lines += ["  See the last result:", f"    curl '{url}/api/jobs?limit=1'"]
    return "\n".join([*lines, "", "  Stop with Ctrl+C", ""])


def _skills(names: list[str]) -> list[str]:
    width = max(40, shutil.get_terminal_size().columns - 2)
    text = f"  Skills: {', '.join(names) or 'none'}"
    return textwrap.wrap(text, width, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False)


def example(schema: dict[str, Any], root: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """Return a value that usually satisfies a JSON Schema; required fields only."""
    root = root if root is not None else schema
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if "$ref" in schema and depth < _DEEPEST:
        name = str(schema["$ref"]).rpartition("/")[2]
        return example(root.get("$defs", {}).get(name, {}), root, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example(schema[key][0], root, depth + 1)
    if schema.get("type") == "array" or "properties" in schema or schema.get("type") == "object":
        return _container(schema, root, depth)
    return _scalar(schema)


_DEEPEST = 8


def _container(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    if schema.get("type") == "array":
        item = as_object(schema.get("items"))
        return [example(item, root, depth + 1)] * int(schema.get("minItems", 0)) if depth < _DEEPEST else []
    properties = as_object(schema.get("properties"))
    required = schema.get("required", ()) if depth < _DEEPEST else ()
    return {name: example(properties.get(name, {}), root, depth + 1) for name in required}


def _scalar(schema: dict[str, Any]) -> Any:
    match schema.get("type"):
        case "string":
            return "text".ljust(int(schema.get("minLength", 0)), "x")
        case "integer" | "number":
            return schema.get("minimum", int(schema.get("exclusiveMinimum", 0)) + 1)
        case "boolean":
            return True
        case _:
            return None
