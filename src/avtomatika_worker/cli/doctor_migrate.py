"""``worker doctor --migrate``: what of a project written for the official SDK will differ."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from avtomatika_worker.cli import terminal
from avtomatika_worker.cli.findings import Section, ok, print_json, print_section, print_summary, warning, worst
from avtomatika_worker.compat.project_scan import scan


def migrate_command(project: str, *, as_json: bool) -> NoReturn:
    """List what will differ; the exit code is by the worst finding."""
    found = [warning(f"{each.file}:{each.line}: {each.what}", each.advice) for each in scan(Path(project))]
    nothing = ok("nothing was found that will differ; docs/howto/migrating.md lists what cannot be seen in the code")
    section = Section(f"Project {project}", tuple(found) or (nothing,))
    console = terminal.console(highlight=False, quiet=as_json)
    print_section(section, console)
    if as_json:
        print_json([section])
    print_summary([section], console)
    sys.exit(worst([section]).exit_code)
