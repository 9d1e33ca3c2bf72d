"""``worker call``: one task through the whole pipeline, and its result."""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from avtomatika_worker._atexit import exit_at_once
from avtomatika_worker._signals import hear_signals
from avtomatika_worker.cli import terminal
from avtomatika_worker.cli.dev import local_environment
from avtomatika_worker.cli.dev_log import DevLogFormatter
from avtomatika_worker.cli.fields import split_fields, typed_fields
from avtomatika_worker.cli.machines import write_json
from avtomatika_worker.cli.progress_line import ProgressLine
from avtomatika_worker.cli.worker_app import UsageProblem, load_app, load_settings, load_skills, usage_errors
from avtomatika_worker.devserver import Change, Subscription
from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.files.offload import Place, replaced, texts
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.protocol.messages import PROGRESS_EVENT
from avtomatika_worker.protocol.uris import is_object_uri
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.testing import RunningTask, SeenError, SkillResult, WorkerHarness
from avtomatika_worker.testing.streamed import ChunkReader
from avtomatika_worker.worker import Worker
from avtomatika_worker.worker.program import EXIT_CRASHED, EXIT_FORCED, EXIT_OK, leave

_TRIED_AGAIN: Final = frozenset(
    {"TRANSIENT_ERROR", "RESOURCE_EXHAUSTED_ERROR", "INTERNAL_ERROR", "DEPENDENCY_MISSING_ERROR"}
)
_QUOTE: Final = """quote it for the shell: '{"width": 100}'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The command line's arguments."""

    skill: str
    params: str | None
    file: str | None
    fields: Sequence[str]
    metadata: str | None
    deadline: float | None
    as_json: bool


def call_command(app: str | None, call: Call) -> None:
    """Run one task; exits with code 0 if the skill finished by itself, 1 if it failed or was cancelled."""
    params = read_params(call.params, call.file)
    named = split_fields(call.fields)
    metadata = _object(call.metadata, "--metadata", f" ({_QUOTE})") if call.metadata is not None else None
    worker = load_app(app)
    settings = load_settings(worker, **local_environment("http://127.0.0.1:1", "not-used"))
    load_skills(worker, settings)
    params |= typed_fields(named, _schema_of(worker, call.skill))
    level = settings.log_level.value if os.environ.get("LOG_LEVEL") else "WARNING"
    line = ProgressLine(terminal.console(highlight=False, soft_wrap=True, quiet=call.as_json))
    handler = configure_logging(settings.log_format.value, level, worker_id=settings.worker_id, text=DevLogFormatter)
    handler.addFilter(line.gives_way)
    overrides: dict[str, Any] = {}
    if settings.file_store_root is None:  # files of the result stay there; created with the first of them
        overrides["file_store_root"] = Path(tempfile.gettempdir()) / f"worker-call-{uuid.uuid4().hex[:8]}"
    with usage_errors():
        result = asyncio.run(_run(worker, call, params, metadata, overrides, line))
    leave(EXIT_OK if result.ok else EXIT_CRASHED)


def read_params(text: str | None, file: str | None) -> dict[str, Any]:
    """Merge the params from a file and the JSON; the latter win."""
    params: dict[str, Any] = {}
    if file is not None:
        params |= _object(_read(file), f"--file {file}")
    if text is not None:
        params |= _object(text, "the params", f" ({_QUOTE}, or use --param width=100)")
    return params


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageProblem(f"--file {file}: cannot be read: {reason}") from error


def _object(text: str, what: str, hint: str = "") -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageProblem(f"{what}: not JSON: {error}{hint}") from None
    if not is_dict(value):
        raise UsageProblem(f"""{what}: it should be an object such as '{{"width": 100}}'""")
    return value


def _schema_of(worker: Worker, skill: str) -> JsonSchema | None:
    """Return the schema of a skill's params. Exits with code 2 if there is no such skill."""
    names = worker.skills.names()
    if skill not in names:
        near = difflib.get_close_matches(skill, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"its skills: {', '.join(names) or 'none'}"
        raise UsageProblem(f"there is no skill {skill!r}; {hint}")
    found = worker.skills.get(skill)
    return found.contract.input_schema if found is not None else None


async def _run(
    worker: Worker,
    call: Call,
    params: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
    overrides: Mapping[str, Any],
    line: ProgressLine,
) -> SkillResult:
    environ = {"WORKER_ID": "local", **os.environ}
    # A separate thread: progress is shown and Ctrl+C works even while a skill blocks its loop.
    async with WorkerHarness(worker, settings=overrides, environ=environ, own_thread=True) as harness:
        try:
            given = with_files(worker, call.skill, params)
            task = harness.submit(call.skill, given, deadline_in=call.deadline, metadata=metadata)
        except (ValueError, OSError, UnsendableValueError) as error:
            raise UsageProblem(f"the task: {error}") from error
        changes = harness.orchestrator.subscribe(lambda change: change.job is task.job)
        stream = _Stream(ChunkReader(worker.skills, call.skill), line)
        watching = asyncio.create_task(_watch(changes, stream, line))  # noqa: TID251 - waited for below
        _cancel_on_interrupt(task)
        result = await task.result(timeout=None)
        changes.close()
        await watching
        line.hide()
        stream.end()
    if call.as_json:
        write_json(result.to_json())
    else:
        _print(result, line.console, stream)
    return result


def with_files(worker: Worker, skill: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params with a `Path` for each local file or directory they name where the skill expects one.

    The harness stores those for the task: a worker never opens a path that a task names.
    """
    found = worker.skills.get(skill)
    wanted = found.path_places(dict(params)) if found is not None else frozenset[Place]()
    named = {place: text for place, text in texts(params) if place in wanted and not is_object_uri(text)}
    paths = {place: Path(text).absolute() for place, text in named.items() if os.path.exists(text)}  # noqa: PTH110
    return as_object(replaced(params, paths))


def _cancel_on_interrupt(task: RunningTask) -> None:
    """Make a signal cancel the task as an orchestrator would; a second one ends the program."""
    loop = asyncio.get_running_loop()

    def heard(_number: int, times: int) -> None:
        if times > 1:
            exit_at_once(EXIT_FORCED)
        loop.call_soon_threadsafe(task.cancel)

    hear_signals(heard)


class _Stream:
    """Prints what the skill yields as it arrives: text without breaks, anything else one item per line."""

    def __init__(self, reader: ChunkReader, line: ProgressLine) -> None:
        self._reader = reader
        self._line = line
        self._console = line.console
        self._open_line = False
        self._shown: list[str] = []

    def take(self, event: Mapping[str, Any]) -> bool:
        """Print an event's chunks; return false if it has none."""
        if not self._reader.is_chunk(event):
            return False
        for chunk in self._reader.read(event):
            self._line.hide()
            if isinstance(chunk, str):
                self._shown.append(chunk)
                self._console.print(Text(chunk), end="")
                self._open_line = not chunk.endswith("\n")
            else:
                self.end()
                shown = f"{len(chunk):,} bytes" if isinstance(chunk, bytes) else json.dumps(chunk, ensure_ascii=False)
                self._console.print(Text.assemble(" chunk  ", (shown, "cyan")))
        return True

    def end(self) -> None:
        """End the line if text was printed on it."""
        if self._open_line:
            self._console.print()
        self._open_line = False

    def has_shown(self, data: Mapping[str, Any]) -> bool:
        """Whether a result has already been printed."""
        return bool(self._shown) and data == {"result": "".join(self._shown)}


async def _watch(changes: Subscription, stream: _Stream, line: ProgressLine) -> None:
    """Print chunks and events as they come, and show progress."""
    async for change in changes:
        if change.kind == "event" and stream.take(change.data):
            continue
        stream.end()
        if change.kind == "event" and change.data.get("event_type") != PROGRESS_EVENT:  # which arrives late
            _print_event(change, line.console)
        elif change.kind == "progress":
            progress = as_object(change.data.get("progress"))
            line.show(float(progress.get("progress") or 0.0), str(progress.get("message") or ""))


def _print_event(change: Change, console: Console) -> None:
    payload = json.dumps(change.data.get("payload") or {}, ensure_ascii=False)
    console.print(Text.assemble(" event  ", (str(change.data.get("event_type")), "magenta"), f"  {payload}"))


def _print(result: SkillResult, console: Console, stream: _Stream) -> None:
    colour = "green" if result.ok else "red"
    console.print(Text.assemble((result.status, f"bold {colour}"), f" in {result.duration:.2f} s"))
    if result.error is not None:
        _print_error(result.error, console)
    elif result.ok and not stream.has_shown(result.data):
        console.print_json(json.dumps(result.data, ensure_ascii=False))
    costs = {name: cost for name, cost in result.costs.items() if name != "execution_time_seconds"}
    if costs:
        console.print(Text("costs " + ", ".join(f"{name} {cost:g}" for name, cost in costs.items()), style="dim"))


def _print_error(error: SeenError, console: Console) -> None:
    console.print(Text.assemble((error.code, "red"), f": {error.message}"))
    if error.details:
        console.print_json(json.dumps(error.details, ensure_ascii=False))
    if error.code in _TRIED_AGAIN:
        console.print(Text("An orchestrator may retry this task; here it runs once.", style="dim"))
