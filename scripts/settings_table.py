"""Write docs/configuration.md from the fields of Settings; with --check, only say whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path

from avtomatika_worker.config import describe

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
HEAD = """\
# Configuration

All settings are environment variables. `worker` also reads a file `.env` in the working directory; the environment
wins over it. A variable that is empty counts as unset. Wrong values stop the start: all problems are reported at once.

Booleans are `true`/`false`, `1`/`0`, `yes`/`no` or `on`/`off`, in any case.

This page is generated from the code (`make docs`); do not edit it.

| Variable | Description | Default |
|---|---|---|
"""


def render() -> str:
    """Return the page."""
    rows = (
        f"| `{row.variable}` | {_cell(row.description)} | {_default(row.default, row.in_words)} |\n"
        for row in describe()
    )
    return HEAD + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(text: str, in_words: bool) -> str:
    return _cell(text) if in_words or not text else f"`{_cell(text)}`"


def main(arguments: list[str]) -> int:
    """Write the page, or check it."""
    page = render()
    current = TARGET.exists() and TARGET.read_text(encoding="utf-8") == page
    if "--check" in arguments:
        if not current:
            print(f"{TARGET.relative_to(TARGET.parent.parent)} is not current: run `make docs`", file=sys.stderr)
        return 0 if current else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
