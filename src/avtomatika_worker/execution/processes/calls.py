"""What a process asks of its task's context: progress, costs, events, files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from avtomatika_worker.execution.context import TaskContext


def tell(ctx: TaskContext, verb: str, arguments: list[Any]) -> None:
    """Do what needs no answer. Raises KeyError for an unknown verb."""
    _TOLD[verb](ctx, *arguments)


async def answer(ctx: TaskContext, verb: str, arguments: list[Any]) -> Any:
    """Return what was asked for. Raises KeyError for an unknown verb, and whatever the context raises."""
    return await _ASKED[verb](ctx, *arguments)


async def _directory(ctx: TaskContext) -> str:
    return str(await ctx.files.get_root())


async def _upload_file(ctx: TaskContext, name: str, target: str | None) -> str:
    return str(await ctx.files.upload_file(name, target))


async def _upload_dir(ctx: TaskContext, name: str, target: str | None) -> str:
    return str(await ctx.files.upload_dir(name, target))


async def _download(ctx: TaskContext, uri: str, name: str | None) -> str:
    return str(await ctx.files.download_file(uri, name))


def _note_returned(ctx: TaskContext, paths: list[str]) -> None:
    if ctx.used_files is not None:
        ctx.used_files.note_returned(paths)


_TOLD: Final[dict[str, Callable[..., object]]] = {
    "progress": TaskContext.send_progress,
    "message": TaskContext.tell,
    "cost": TaskContext.add_cost,
    "hot": TaskContext.add_to_hot_cache,
    "cold": TaskContext.remove_from_hot_cache,
    "returned": _note_returned,
}
_ASKED: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    "event": TaskContext.relay_event,
    "directory": _directory,
    "upload_file": _upload_file,
    "upload_dir": _upload_dir,
    "download": _download,
}
