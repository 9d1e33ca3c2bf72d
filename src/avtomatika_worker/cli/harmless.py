"""A rich console that the text it prints cannot control."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.segment import Segment
from rich.text import Text

from avtomatika_worker.observability.printable import printable

_BLANKS_AT_END: Final = re.compile(r" +(?=\n)")


def make_console(**options: Any) -> Console:
    """Make a rich console that escapes control characters in everything it prints.

    Texts are no markup, wherever they stand: in ``print``, in a cell, in a title. Styles are for `rich.text.Text`.
    """
    made = _Harmless(markup=False, emoji=False, **options)
    if not made.is_terminal:
        made.push_render_hook(_WITHOUT_PADDING)
    return made


class _Harmless(Console):
    """Escapes texts where rich renders them, in live displays too; rich's own codes stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render anything, with its texts escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _Unpadded:
    """A renderable without the blanks that fill its lines up: a file or a pipe has no width to fill, and no styles."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        text = "".join(each.text for each in console.render(self._inner, options) if not each.control)
        yield Segment(_BLANKS_AT_END.sub("", text))


class _WithoutPadding(RenderHook):
    """Plain text stays as it is: its blanks are its own."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [each if isinstance(each, Text) else _Unpadded(each) for each in renderables]


_WITHOUT_PADDING: Final = _WithoutPadding()
