"""A rich console that the text it prints cannot control."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.segment import Segment

from avtomatika_worker.observability.printable import printable


def make_console(**options: Any) -> Console:
    """Make a rich console that escapes control characters in everything it prints.

    Texts are no markup, wherever they stand: in ``print``, in a cell, in a title. Styles are for `rich.text.Text`.
    """
    made = Console(markup=False, emoji=False, **options)
    made.push_render_hook(_HARMLESS)
    return made


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
