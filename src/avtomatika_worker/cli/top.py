"""``worker top``: a live view of a running worker."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from avtomatika_worker._atexit import exit_at_once
from avtomatika_worker._signals import SIGNALLED, hear_signals
from avtomatika_worker.cli import terminal
from avtomatika_worker.cli.health_port import HealthPort, NoAnswerError, default_url
from avtomatika_worker.cli.machines import write_json_line
from avtomatika_worker.cli.worker_app import UsageProblem, read_dotenv
from avtomatika_worker.config import load_settings
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.narrowing import is_list
from avtomatika_worker.protocol.coerce import as_number, as_object, as_text

_BAR: Final = 16
_SHORT_ID: Final = 8


def top_command(url: str | None, *, interval: float, once: bool, as_json: bool) -> None:
    """Show a worker until Ctrl+C, or once. Exits with code 1 if none answers at first."""
    port = HealthPort(url or _own_url())
    try:
        health = port.health()
    except NoAnswerError as error:
        advice = "start one with `worker run` (`worker dev` has its console instead), or name another with --url"
        terminal.echo(f"worker: no worker answers at {port.url}: {error}; {advice}", err=True)
        sys.exit(1)
    ended = _Ended(interval, once=once or not (as_json or sys.stdout.isatty()))
    if as_json:
        _write_lines(port, health, ended)
    else:
        _show(port, health, ended)
    sys.exit(ended.code)


class _Ended:
    """Waits between updates until a signal arrives; a second signal ends the process at once."""

    def __init__(self, interval: float, *, once: bool) -> None:
        self.once: bool = once
        self.code: int = 0
        self._interval = interval
        self._stop = threading.Event()
        if not once:  # a single update may be interrupted at any time
            hear_signals(self._heard)

    def __call__(self) -> bool:
        """Wait; return whether to stop."""
        return self.once or self._stop.wait(self._interval)

    def _heard(self, number: int, times: int) -> None:
        self.code = SIGNALLED + number
        self._stop.set()
        if times > 1:
            exit_at_once(self.code)


def _own_url() -> str:
    read_dotenv()
    try:
        settings = load_settings(os.environ)
    except ConfigError as error:
        raise UsageProblem(f"the settings here are invalid; name the health server with --url: {error}") from error
    return default_url(settings.health_host, settings.port)


def _write_lines(port: HealthPort, health: dict[str, Any], ended: _Ended) -> None:
    while write_json_line(health) and not ended():
        try:
            health = port.health()
        except NoAnswerError as error:
            health = {"live": False, "ready": False, "not_live": f"no answer: {error}"}


def _show(port: HealthPort, health: dict[str, Any], ended: _Ended) -> None:
    console = terminal.console(highlight=False)
    if ended.once:
        console.print(view(health))
        return
    with Live(view(health), console=console, screen=True, auto_refresh=False) as live:
        while not ended():
            try:
                health, silent = port.health(), ""
            except NoAnswerError as error:
                silent = f"no answer: {error}"
            live.update(view(health, silent), refresh=True)


def view(health: dict[str, Any], silent: str = "") -> RenderableType:
    """Return the view of a response of ``/health``; ``silent`` says why there is no newer one."""
    parts: list[RenderableType] = [Text(f"{silent}; showing the last known state", style="bold red")] if silent else []
    for worker in _workers(health):
        parts += [_heading(worker), _facts(worker), _tasks(worker), Text()]
    return Group(*parts[:-1])


def _workers(health: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the response of each worker: a fleet has several."""
    processes = health.get("processes")
    if not is_list(processes):
        yield health
        return
    for each in map(as_object, processes):
        yield {"worker_id": each.get("worker_id"), "status": each.get("state"), **as_object(each.get("health"))}


def _heading(worker: dict[str, Any]) -> Text:
    name, kind, version = (as_text(worker.get(key)) or "" for key in ("worker_id", "worker_type", "version"))
    heading = Text(name or "worker", style="bold")
    heading.append(f"  {kind} {version}  ", style="dim")
    status = as_text(worker.get("status")) or "?"
    # A worker announces "idle" while it runs tasks, too: orchestrators queue for none that is busy.
    shown = "busy" if status == "idle" and worker.get("tasks") else status
    heading.append(shown, style="green" if status == "idle" else "yellow")
    for key in ("not_live", "not_ready"):
        if problem := as_text(worker.get(key)):
            heading.append(f"  {problem}", style="bold red")
    return heading


def _facts(worker: dict[str, Any]) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_row(Text("slots", style="dim"), _slots(as_object(worker.get("slots"))))
    for link in _objects(worker.get("links")):
        state, outbox = as_text(link.get("state")) or "?", as_number(link.get("outbox")) or 0
        line = Text(f"{as_text(link.get('orchestrator'))}  ")
        line.append(state, style="green" if state == "registered" else "red")
        line.append(f"  protocol {as_text(link.get('protocol'))}", style="dim")
        line.append(f"  {outbox:.0f} waiting" if outbox else "")
        facts.add_row(Text("link", style="dim"), line)
    facts.add_row(Text("outbox", style="dim"), _outbox(as_object(worker.get("outbox"))))
    facts.add_row(Text("skills", style="dim"), _skills(worker))
    return facts


def _slots(slots: dict[str, Any]) -> Text:
    total, usable, running, polling = (
        int(as_number(slots.get(key)) or 0) for key in ("total", "usable", "running", "polling")
    )
    held_back = f", {total - usable} held back" if usable < total else ""
    return Text(f"{running} of {total} running, {polling} polling{held_back}")


def _outbox(outbox: dict[str, Any]) -> Text:
    depth, expired = (int(as_number(outbox.get(key)) or 0) for key in ("depth", "expired"))
    oldest = as_number(outbox.get("oldest_seconds")) or 0.0
    text = Text(f"{depth} waiting, the oldest for {_duration(oldest)}" if depth else "empty")
    text.append(f", {expired} given up" if expired else "", style="bold red")
    return text


def _skills(worker: dict[str, Any]) -> Text:
    running = [as_text(each.get("skill")) for each in _objects(worker.get("tasks"))]
    text = Text()
    for skill in _objects(worker.get("skills")):
        name = as_text(skill.get("name")) or "?"
        count = running.count(name)
        style = "" if skill.get("available") is True else "dim"
        text.append("  " if text else "").append(name, style="bold" if skill.get("hot") is True else style)
        text.append(f" ×{count}" if count else "").append("" if skill.get("available") is True else " (full)", style)
    return text


def _tasks(worker: dict[str, Any]) -> RenderableType:
    tasks = list(_objects(worker.get("tasks")))
    if not tasks:
        return Text("no task is running", style="dim")
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("skill", "job", "running", "progress", "", "left"):
        table.add_column(name, no_wrap=True)
    for task in tasks:
        progress, left = as_number(task.get("progress")), as_number(task.get("seconds_left"))
        hand_outs = int(as_number(task.get("hand_outs")) or 1)
        table.add_row(
            Text(as_text(task.get("skill")) or "?").append(f" (#{hand_outs})" if hand_outs > 1 else "", "yellow"),
            (as_text(task.get("job_id")) or "")[:_SHORT_ID],
            _duration(as_number(task.get("seconds")) or 0.0),
            "" if progress is None else ProgressBar(total=1.0, completed=progress, width=_BAR),
            "" if progress is None else f"{progress:.0%}",
            "?" if left is None else _duration(left),
        )
    return table


def _objects(value: object) -> Iterator[dict[str, Any]]:
    return (as_object(each) for each in (value if is_list(value) else ()))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
