"""What a process asks of its task's context: progress, costs, events, files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.skills.chunks import ChunkKind


def notify(controls: Controls, verb: str, arguments: list[Any]) -> None:
    """Do what needs no answer. Raises KeyError for an unknown verb."""
    _NOTICES[verb](controls, *arguments)


async def answer(controls: Controls, verb: str, arguments: list[Any]) -> Any:
    """Return what was asked for. Raises KeyError for an unknown verb, and whatever the context raises."""
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
}
_QUESTIONS: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    "chunk_room": Controls.chunk_room,
    "event": Controls.relay_event,
    "directory": _directory,
    "upload_file": _upload_file,
    "upload_dir": _upload_dir,
    "upload_json": _upload_json,
    "download": _download,
}
