"""The findings of `worker doctor`, and how they are printed."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from avtomatika_worker.cli.machines import write_json


class Severity(enum.IntEnum):
    """How bad a finding is. The worst one's `exit_code` is the command's."""

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 for a warning, 2 for an error that keeps a worker from working."""
        return max(0, self - 1)


_STYLES = {Severity.OK: "green", Severity.NOTE: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, and what to do about it."""

    severity: Severity
    text: str
    advice: str = ""


def ok(text: str) -> Finding:
    """Report something that is as it should be."""
    return Finding(Severity.OK, text)


def note(text: str, advice: str = "") -> Finding:
    """Report something worth knowing."""
    return Finding(Severity.NOTE, text, advice)


def warning(text: str, advice: str) -> Finding:
    """Report something that works now but may soon fail."""
    return Finding(Severity.WARNING, text, advice)


def error(text: str, advice: str) -> Finding:
    """Report something that keeps the worker from working."""
    return Finding(Severity.ERROR, text, advice)


@dataclass(frozen=True, slots=True)
class Section:
    """The findings about one thing."""

    title: str
    findings: tuple[Finding, ...]


def print_section(section: Section, console: Console) -> None:
    """Print the findings of a section, each with its advice below."""
    console.print(Text(section.title, style="bold"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True, min_width=7)
    table.add_column(overflow="fold")
    for each in section.findings:
        table.add_row(Text(each.severity.name.lower(), style=_STYLES[each.severity]), Text(each.text))
        if each.advice:
            table.add_row("", Text(f"→ {each.advice}", style="dim"))
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
    console.print()


def print_summary(sections: Iterable[Section], console: Console) -> None:
    """Print a one-line summary."""
    errors, warnings = _count(sections)
    if errors or warnings:
        parts = [_number(errors, "error"), _number(warnings, "warning")]
        style = "bold red" if errors else "yellow"
        console.print(Text(" and ".join(part for part in parts if part), style=style))
    else:
        console.print(Text("Everything is fine.", style="green"))


def print_json(sections: Iterable[Section]) -> None:
    """Print everything for machines."""
    sections = tuple(sections)
    errors, warnings = _count(sections)
    findings = [
        {"section": section.title, "severity": each.severity.name.lower(), "text": each.text, "advice": each.advice}
        for section in sections
        for each in section.findings
    ]
    reported = {"errors": errors, "warnings": warnings, "findings": findings}
    write_json(reported)


def worst(sections: Iterable[Section]) -> Severity:
    """Return the severity of the worst finding."""
    return max((each.severity for section in sections for each in section.findings), default=Severity.OK)


def _count(sections: Iterable[Section]) -> tuple[int, int]:
    severities = [each.severity for section in sections for each in section.findings]
    return severities.count(Severity.ERROR), severities.count(Severity.WARNING)


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}" if count else ""
