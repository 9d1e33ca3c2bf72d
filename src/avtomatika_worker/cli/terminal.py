"""The only way to the terminal: text from tasks, orchestrators and files is shown, but cannot control it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.segment import Segment

from avtomatika_worker.observability.printable import printable


def console(**options: Any) -> Console:
    """Make a rich console that escapes control characters in everything it prints."""
    made = Console(**options)
    made.push_render_hook(_HARMLESS)
    return made


def echo(text: str, *, err: bool = False, file: Any = None) -> None:
    """Write lines of text."""
    click.echo(printable(text), err=err, file=file)


class _Harmless:
    """A renderable whose text is escaped after rich has laid it out; rich's own codes stay."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _HarmlessOnly(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Harmless(each) for each in renderables]


_HARMLESS: Final = _HarmlessOnly()
