"""``worker doctor --migrate``: what will behave differently in a project written for the official SDK."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from avtomatika_worker.cli import terminal
from avtomatika_worker.cli.findings import Section, ok, print_json, print_section, print_summary, warning, worst
from avtomatika_worker.compat.project_scan import scan


def migrate_command(project: str, *, as_json: bool) -> NoReturn:
    """List the differences; the worst finding sets the exit code."""
    found = [warning(f"{each.file}:{each.line}: {each.what}", each.advice) for each in scan(Path(project))]
    nothing = ok("no differences were found; docs/howto/migrating.md lists those that cannot be seen in the code")
    section = Section(f"Project {project}", tuple(found) or (nothing,))
    console = terminal.console(highlight=False, quiet=as_json)
    print_section(section, console)
    if as_json:
        print_json([section])
    print_summary([section], console)
    sys.exit(worst([section]).exit_code)
