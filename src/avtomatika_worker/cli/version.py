"""``worker version``."""

from __future__ import annotations

import json
import platform

import click

from avtomatika_worker._version import __version__
from avtomatika_worker.cli.machines import write
from avtomatika_worker.protocol.dialects import DIALECTS


def version_command(*, as_json: bool) -> None:
    """Print the version; as JSON with what else a report of a bug should name."""
    if not as_json:
        click.echo(__version__)
        return
    facts = {
        "version": __version__,
        "protocols": [dialect.version for dialect in DIALECTS],
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    write(json.dumps(facts, indent=2))
