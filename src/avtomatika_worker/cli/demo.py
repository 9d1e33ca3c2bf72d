"""``worker demo``: watch a worker run real tasks from an orchestrator."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from avtomatika_worker._atexit import exit_at_once
from avtomatika_worker._extras import install_hint
from avtomatika_worker._signals import SIGNALLED, hear_signals
from avtomatika_worker.cli import terminal
from avtomatika_worker.cli.dev import local_environment
from avtomatika_worker.cli.worker_app import UsageProblem
from avtomatika_worker.config import Settings
from avtomatika_worker.demo_app.demo_jobs import DATA, PICTURES, DemoJob, demo_jobs
from avtomatika_worker.devserver import EmbeddedOrchestrator, JobRecord, JobState
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.worker.file_settings import make_files, with_own_files
from avtomatika_worker.worker.program import EXIT_CRASHED, EXIT_FORCED, EXIT_OK, leave
from avtomatika_worker.worker.thread import WorkerThread

_TIMEOUT = 300.0
"""Seconds after which the demo gives up on a very slow machine."""

_BAR = 16
_SHORT = 20
_MOST_FACTS = 4
_LINE = 76


def demo_command(output: str) -> None:
    """Run the demo; exits with code 0 if every task ended as it should."""
    if importlib.util.find_spec("PIL") is None:
        raise UsageProblem(f"the demo makes thumbnails with Pillow; {install_hint('demo')}")
    try:
        if not _object_store().get("S3_DEFAULT_BUCKET"):  # then the pictures go there
            Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageProblem(f"--output {output}: {error.strerror}; choose another directory") from error
    configure_logging("text", os.environ.get("LOG_LEVEL", "CRITICAL"))
    with tempfile.TemporaryDirectory() as no_skills:
        code = asyncio.run(_until_interrupted(_run(Path(output), terminal.console(), no_skills)))
    leave(code)


async def _until_interrupted(demo: Coroutine[Any, Any, int]) -> int:
    """Run the demo and return its exit code. A signal ends it without waiting for its skills."""
    loop, running, came = asyncio.get_running_loop(), asyncio.current_task(), list[int]()
    assert running is not None  # noqa: S101 - this runs in a task

    def heard(number: int, times: int) -> None:
        if times > 1:
            exit_at_once(EXIT_FORCED)
        came.append(number)
        loop.call_soon_threadsafe(running.cancel)

    hear_signals(heard)
    try:
        return await demo
    except asyncio.CancelledError:
        exit_at_once(SIGNALLED + came[0])


async def _run(output: Path, console: Console, skills_dir: str) -> int:
    from avtomatika_worker.demo_app.app import worker

    token = secrets.token_urlsafe(16)
    async with EmbeddedOrchestrator(token=token) as orchestrator:
        # Ignore any skills directory found here, and use only the object store from the environment: the demo is
        # always the same.
        fixed = {"WORKER_ID": "demo", "WORKER_PROGRESS_INTERVAL": "0.1", "WORKER_SKILLS_DIR": skills_dir}
        here = local_environment(orchestrator.url, token)
        settings = worker.load_settings({**_object_store(), **here, **fixed})
        if settings.s3_default_bucket is not None:
            settings = with_own_files(settings, None)
        pictures = await _stored_pictures(settings)
        thread = WorkerThread(worker, settings)
        thread.start()
        record = await orchestrator.wait_for_worker(timeout=30)
        console.print(
            Text.assemble(f"Orchestrator at {orchestrator.url}, worker ", (record.worker_id, "bold"), " registered\n")
        )
        jobs = [(job, orchestrator.submit(job.skill, job.params)) for job in demo_jobs(output, pictures)]
        await _watch(orchestrator, jobs, console)
        thread.request_shutdown()
        await thread.ended()
    _print_outcomes(jobs, console)
    where = output if pictures is None else f"the bucket {settings.s3_default_bucket}"
    console.print(Text.assemble("Thumbnails are in ", (str(where), "bold")))
    console.print(
        Text.assemble("\nNext: ", ("worker init my-worker", "bold"), " makes a project with a worker of your own.")
    )
    return EXIT_OK if all(_as_expected(job, record) for job, record in jobs) else EXIT_CRASHED


def _object_store() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("S3_")}


async def _stored_pictures(settings: Settings) -> str | None:
    """Upload the demo's pictures if an S3 store is configured; return the URI prefix they are under."""
    if settings.s3_default_bucket is None:
        return None
    files = make_files(settings)
    task = files.for_task("worker-demo", "pictures", lambda _: None)
    try:
        for name in PICTURES:
            await task.files.write(name, (DATA / name).read_bytes())
        return await task.upload_dir()
    finally:
        await task.remove()
        files.close()


async def _watch(orchestrator: EmbeddedOrchestrator, jobs: list[tuple[DemoJob, JobRecord]], console: Console) -> None:
    """Show progress until every job has ended."""
    # The note gets the remaining width, so that its length does not move the other columns.
    note_column = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    note = TextColumn("{task.fields[note]}", markup=False, table_column=note_column)
    title = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), title, _Bar(_BAR), TimeElapsedColumn(), note)
    with Progress(*columns, console=console, expand=True, disable=not console.is_terminal) as bars:
        rows: dict[str, TaskID] = {
            record.job_id: bars.add_task(job.title, total=1.0, note=record.state.value, failed=False)
            for job, record in jobs
        }
        async with asyncio.timeout(_TIMEOUT):
            changes = orchestrator.subscribe()
            _show(bars, rows, jobs)
            while not all(record.state.final for _, record in jobs):
                await anext(changes)
                _show(bars, rows, jobs)
            changes.close()


def _show(bars: Progress, rows: dict[str, TaskID], jobs: list[tuple[DemoJob, JobRecord]]) -> None:
    for _, record in jobs:
        done = 1.0 if record.state.final else record.progress.fraction
        note = record.progress.message if record.state is JobState.RUNNING else record.state.value
        failed = record.state.final and record.state is not JobState.FINISHED
        bars.update(rows[record.job_id], completed=done, note=note or record.state.value, failed=failed)


class _Bar(BarColumn):
    """A bar that is red where its job failed."""

    def render(self, task: Task) -> ProgressBar:
        """Return the bar of a job."""
        bar = super().render(task)
        if task.fields["failed"]:
            bar.complete_style = bar.finished_style = "red"
        return bar


def _print_outcomes(jobs: list[tuple[DemoJob, JobRecord]], console: Console) -> None:
    """Print two lines for each job: in 80 columns a table would leave no room for the results."""
    title = max(len(job.title) for job, _ in jobs)
    skill = max(len(job.skill) for job, _ in jobs)
    console.print(Text("\nResults\n", style="bold"))
    for job, record in jobs:
        expected = _as_expected(job, record)
        seconds = (record.finished_at or 0) - (record.handed_out_at or 0)
        status = record.state.value + (", as it should" if expected and job.expect == "failure" else "")
        colour = "green" if expected else "red"
        console.print(
            Text.assemble(
                ("  " + job.title.ljust(title), "bold"),
                ("  " + job.skill.ljust(skill), "cyan"),
                f"  {seconds:5.2f} s  ",
                (status, colour),
            )
        )
        console.print(Padding(Text(_summary(record), style="dim"), (0, 0, 0, 4)))
    console.print()


def _summary(record: JobRecord) -> str:
    if record.error is not None:
        return f"{record.error.get('code')}: {record.error.get('message')}"
    facts = [
        f"{name} {Path(str(value)).name if name == 'path' else value}"
        for name, value in (record.result or {}).items()
        if isinstance(value, int | float) or (isinstance(value, str) and (len(value) <= _SHORT or name == "path"))
    ]
    shown = facts[:_MOST_FACTS]
    while len(", ".join(shown)) > _LINE:
        shown.pop()
    return ", ".join(shown)


def _as_expected(job: DemoJob, record: JobRecord) -> bool:
    return (record.state is JobState.FINISHED) == (job.expect == "success")
