"""The fenced blocks of the documentation, as they stand in its pages."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

_OPENING = re.compile(r"(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w+-]*)(?P<rest>.*)")
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+) -->")
_INCLUDED = re.compile(r"<!-- (?P<path>examples/\S+) -->")


@dataclass(frozen=True)
class Block:
    """A block: ``line`` is where its first line stands, ``title`` the file that it is said to be."""

    page: str
    line: int
    language: str
    title: str | None
    text: str
    not_run: str | None = None
    included: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return the pages that have blocks, as paths from the root."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found if "```" in path.read_text("utf-8")]


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    found: list[Block] = []
    number = 0
    while number < len(lines):
        opening = _OPENING.fullmatch(lines[number])
        if opening is None:
            number += 1
            continue
        end = number + 1
        while lines[end].strip() != opening["fence"]:
            end += 1
        before = lines[number - 1].strip() if number else ""
        title, not_run, included = (
            _TITLE.search(opening["rest"]),
            _NOT_RUN.fullmatch(before),
            _INCLUDED.fullmatch(before),
        )
        found.append(
            Block(
                page,
                number + 2,
                opening["language"],
                title["title"] if title else None,
                textwrap.dedent("\n".join(lines[number + 1 : end]) + "\n"),
                not_run["reason"] if not_run else None,
                included["path"] if included else None,
            )
        )
        number = end + 1
    return found
