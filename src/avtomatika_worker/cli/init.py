"""``worker init``: a project to begin with, which passes its own test."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from avtomatika_worker._version import __version__
from avtomatika_worker.cli.app import UsageProblem

_SUFFIX: Final = ".tmpl"
_DOT: Final = "dot_"


def init_command(name: str) -> None:
    """Write the project into the directory ``name``."""
    target = Path(name)
    title = target.absolute().name
    kind = re.sub(r"[^A-Za-z0-9_-]+", "-", title).strip("-").lower()
    if not kind:
        raise UsageProblem(f"{name!r}: the name should hold letters or digits, such as image-worker")
    values = {"name": title, "type": kind, "version": __version__}
    written: list[Path] = []
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageProblem(f"{name} exists and is not empty; choose another name")
        for path, text in _files(files("avtomatika_worker.cli") / "template"):
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_filled(text, values), encoding="utf-8")
            written.append(file)
    except OSError as error:
        raise UsageProblem(f"{error.filename or name}: {error.strerror}; choose another place") from error
    _tell(target, written, Console(highlight=False))


def _files(directory: Traversable, path: Path = Path()) -> Iterator[tuple[Path, str]]:
    """Return where each file of the template goes, and what is in it."""
    for each in sorted(directory.iterdir(), key=lambda found: found.name):
        if each.is_dir():
            yield from _files(each, path / each.name)
        elif each.name.endswith(_SUFFIX):
            name = each.name.removesuffix(_SUFFIX)
            yield path / (f".{name.removeprefix(_DOT)}" if name.startswith(_DOT) else name), each.read_text("utf-8")


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _tell(target: Path, written: list[Path], console: Console) -> None:
    for file in written:
        console.print(Text.assemble(("  + ", "green"), str(file)))
    steps = (
        (f"cd {shlex.quote(str(target))}", ""),
        ("pip install -r requirements-dev.txt", ""),
        ("pytest", "its tests pass"),
        ("worker call --app app.main:worker greet -p name=Ada", ""),
        ("worker dev --app app.main:worker --reload", ""),
    )
    console.print("\nNext:")
    for command, remark in steps:
        console.print(Text.assemble("  ", (command, "bold"), (f"   # {remark}" if remark else "", "dim")))
