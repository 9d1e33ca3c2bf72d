"""Keep words out of code and prose that a native engineer would not use there, or that stand for too many things.

Run as ``python scripts/check_words.py``: prints each place and what to write instead; exits with 1 if there are any.
Names of variables and functions count, in any case, part by part.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PLACES: Final = (
    *("src", "tests", "docs", "examples", "bench", "cluster", "deploy", "fuzz", "scripts"),
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "Makefile", "pyproject.toml"),
)

TEXTS: Final = frozenset(
    {".css", ".example", ".html", ".js", ".json", ".md", ".py", ".sh", ".tmpl", ".toml", ".txt", ".yaml", ".yml"}
)
"""The suffixes of files that people write."""

EXCEPTIONS: Final = (
    "src/avtomatika_worker/demo_app/data/",  # texts for the demo's skills to read
    "src/avtomatika_worker/demo_app/text.py",  # a list of English words
    "tests/data/",  # recorded traffic
    "scripts/check_words.py",
    "tests/test_words.py",
)

CHANGELOG: Final = "CHANGELOG.md"
"""Only what is unreleased is checked here: a release is history."""

RULES: Final = (
    ("tell, told", r"(?:tell|tells|telling|told)(?![(`)])", "report, say, show, log, name or send"),
    ("anew", r"anew", "again"),
    ("mend", r"mend(?:s|ed|ing)?", "fix or repair"),
    ("for ever", r"for[ _]ever", "indefinitely or forever"),
    ("what came of", r"what[ _](?:came|comes)[ _]of", "the outcome, or what happened to"),
    ("as it says", r"as[ _]it[ _]says", "a plain sentence"),
    ("shall", r"shall", "must, should or will"),
    ("take note of", r"(?:take|takes|taking|took|taken)[ _]note[ _]of", "record"),
    ("see to it that", r"(?:see|sees|saw|seen)[ _]to[ _]it[ _]that", "ensure that"),
)
"""Name, pattern and what to write instead. The position in a file, ``file.tell()``, keeps its name."""

_PATTERNS: Final = tuple(
    (name, re.compile(rf"(?<![A-Za-z])(?:{pattern})(?![A-Za-z])", re.IGNORECASE), instead)
    for name, pattern, instead in RULES
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A word to replace."""

    where: str
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.where}: {self.word!r}: write {self.instead}"


def check(root: Path = Path()) -> list[Finding]:
    """Return the words to replace in the project at ``root``."""
    findings: list[Finding] = []
    for path in sorted(_files(root)):
        where = path.relative_to(root).as_posix()
        text = path.read_text("utf-8")
        findings += check_text(where, _unreleased(text) if where == CHANGELOG else text)
    return findings


def check_text(where: str, text: str) -> Iterator[Finding]:
    """Yield the words to replace in ``text``."""
    for name, pattern, instead in _PATTERNS:
        for match in pattern.finditer(text):
            yield Finding(f"{where}:{text.count(chr(10), 0, match.start()) + 1}", match[0] or name, instead)


def _files(root: Path) -> Iterable[Path]:
    for place in PLACES:
        path = root / place
        found = [path] if path.is_file() else path.rglob("*")
        for each in found:
            is_text = each.suffix in TEXTS or each == path or "Dockerfile" in each.name
            if is_text and each.is_file() and not each.relative_to(root).as_posix().startswith(EXCEPTIONS):
                yield each


def _unreleased(text: str) -> str:
    """Return the changelog up to the first release."""
    _, _, rest = text.partition("## [Unreleased]")
    return text[: len(text) - len(rest)] + rest.partition("\n## [")[0]


def main() -> int:
    """Print the findings."""
    findings = check()
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
