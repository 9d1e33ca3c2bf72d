"""One line of progress at the bottom of the terminal, updated in place."""

from __future__ import annotations

import logging
import threading
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from avtomatika_worker.observability.printable import printable

_BAR: Final = 24


class ProgressLine:
    """The line, from the first `show` until `hide`. Not on a terminal, there is none.

    What is printed through ``console`` meanwhile appears above it; for anything else the line gives way.
    """

    def __init__(self, console: Console) -> None:
        self.console: Console = console
        self._guard = threading.RLock()
        self._live: Live | None = None

    def show(self, fraction: float, message: str) -> None:
        """Show progress, from 0 to 1."""
        if not self.console.is_terminal or self.console.quiet:
            return
        line = Table.grid(padding=(0, 1))
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        text = Text(printable(" ".join(message.split())), style="dim")
        line.add_row(ProgressBar(1.0, fraction, width=_BAR), Text(f"{fraction:4.0%}", style="cyan"), text)
        with self._guard:
            if self._live is None:
                self._live = Live(line, console=self.console, auto_refresh=False, transient=True)
                self._live.start(refresh=True)
            else:
                self._live.update(line, refresh=True)

    def hide(self) -> None:
        """Remove the line until it is shown again. From any thread."""
        with self._guard:
            live, self._live = self._live, None
            if live is not None:
                live.stop()

    def gives_way(self, _record: logging.LogRecord) -> bool:
        """Hide before a record is written: a filter for log handlers, which lets everything pass."""
        self.hide()
        return True
