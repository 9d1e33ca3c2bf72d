"""``worker version``."""

from __future__ import annotations

import platform

import click

from avtomatika_worker._version import __version__
from avtomatika_worker.cli.machines import write_json
from avtomatika_worker.protocol.dialects import DIALECTS


def version_command(*, as_json: bool) -> None:
    """Print the version; as JSON, with the other facts a bug report should have."""
    if not as_json:
        click.echo(__version__)
        return
    facts = {
        "version": __version__,
        "protocols": [dialect.version for dialect in DIALECTS],
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    write_json(facts)
