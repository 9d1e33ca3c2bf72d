"""The only way to the terminal: text from tasks, orchestrators and files is shown, but cannot control it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from avtomatika_worker.observability.printable import printable

if TYPE_CHECKING:
    from rich.console import Console


def console(**options: Any) -> Console:
    """Make a rich console that escapes control characters in everything it prints."""
    from avtomatika_worker.cli.harmless import make_console  # with rich: a worker that runs has no need of it

    return make_console(**options)


def echo(text: str, *, err: bool = False, file: Any = None) -> None:
    """Write lines of text."""
    click.echo(printable(text), err=err, file=file)
