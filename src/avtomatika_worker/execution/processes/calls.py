"""Handles what a skill process asks of its task's context: progress, costs, events, files, checkpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from avtomatika_worker.checkpoints.keeper import Keeper
from avtomatika_worker.checkpoints.saved_state import Kind, State
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.skills.chunks import ChunkKind


def notify(controls: Controls, verb: str, arguments: list[Any]) -> None:
    """Handle a notice, which needs no answer. Raises KeyError for an unknown verb."""
    _NOTICES[verb](controls, *arguments)


async def answer(controls: Controls, verb: str, arguments: list[Any]) -> Any:
    """Answer a question. Raises KeyError for an unknown verb, and whatever the context raises."""
    return await _QUESTIONS[verb](controls, *arguments)


async def _directory(controls: Controls) -> str:
    return str(await controls.files.files.get_root())


async def _upload_file(controls: Controls, name: str, target: str | None) -> dict[str, Any]:
    return (await controls.files.upload_file(name, target)).fields()


async def _upload_dir(controls: Controls, name: str, target: str | None) -> dict[str, Any]:
    return (await controls.files.upload_dir(name, target)).fields()


async def _upload_json(controls: Controls, name: str) -> dict[str, Any] | None:
    return await _upload_file(controls, name, None) if controls.files.stores_results else None


async def _download(controls: Controls, uri: str, name: str | None, facts: dict[str, Any] | None) -> str:
    return str(await controls.files.download_file(uri, name, facts))


async def _save_checkpoint(controls: Controls, kind: str, content: bytes, files: list[str]) -> list[Any]:
    keeper = _keeper(controls)
    return [await keeper.save(State(Kind(kind), content), files), keeper.due_in()]


async def _load_checkpoint(controls: Controls) -> list[Any] | None:
    found = await _keeper(controls).load()
    return None if found is None else [found.state.kind.value, found.state.content, list(found.files)]


async def _reject_checkpoint(controls: Controls, problem: str) -> None:
    await _keeper(controls).reject(problem)


def _defer_checkpoint(controls: Controls, kind: str, content: bytes) -> None:
    _keeper(controls).defer(State(Kind(kind), content))


def _keeper(controls: Controls) -> Keeper:
    _ = controls.checkpoint  # creates the keeper
    assert controls.keeper is not None  # noqa: S101 - always does in the worker
    return controls.keeper


def _note_returned(controls: Controls, paths: list[str]) -> None:
    if controls.used_files is not None:
        controls.used_files.note_returned(paths)


def _progress(controls: Controls, progress: float, message: str) -> None:
    controls.report_progress(progress, message)


def _chunk(controls: Controls, kind: str, data: Any, size: int) -> None:
    controls.send_chunk(ChunkKind(kind), data, size)


def _forget_hot(controls: Controls, name: str) -> None:
    controls.hot.remove(name)


_NOTICES: Final[dict[str, Callable[..., object]]] = {
    "chunk": _chunk,
    "progress": _progress,
    "message": Controls.say,
    "cost": Controls.add_cost,
    "hot": Controls.announce,
    "cold": _forget_hot,
    "returned": _note_returned,
    "checkpoint_defer": _defer_checkpoint,
}
_QUESTIONS: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    "chunk_room": Controls.chunk_room,
    "event": Controls.relay_event,
    "directory": _directory,
    "upload_file": _upload_file,
    "upload_dir": _upload_dir,
    "upload_json": _upload_json,
    "download": _download,
    "checkpoint_save": _save_checkpoint,
    "checkpoint_load": _load_checkpoint,
    "checkpoint_reject": _reject_checkpoint,
}
