"""``worker init``: a starter project that passes its own tests."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.text import Text

from avtomatika_worker.cli import terminal
from avtomatika_worker.cli.wheel import InstalledPackage
from avtomatika_worker.cli.worker_app import UsageProblem

_SUFFIX: Final = ".tmpl"
_DOT: Final = "dot_"


def init_command(name: str) -> None:
    """Write the project into the directory ``name``, next to any files already there."""
    target = Path(name)
    title = target.absolute().name
    kind = re.sub(r"[^A-Za-z0-9_-]+", "-", title).strip("-").lower()
    if not kind:
        raise UsageProblem(f"{name!r}: the name should hold letters or digits, such as image-worker")
    package = InstalledPackage()
    wheel = Path("wheels", package.wheel_name)
    values = {"name": title, "type": kind, "wheel": wheel.as_posix()}
    texts = {path: _filled(text, values) for path, text in _files(files("avtomatika_worker.cli") / "template")}
    try:
        _refuse_to_overwrite(target, [*texts, wheel])
        for path, text in texts.items():
            with _new_file(target / path) as file:
                file.write(text.encode())
        with _new_file(target / wheel) as file:
            package.write_wheel(file)
    except OSError as error:
        raise UsageProblem(f"{error.filename or name}: {error.strerror}; choose another place") from error
    _show(target, [*texts, wheel], terminal.console(highlight=False))


def _refuse_to_overwrite(target: Path, paths: Iterable[Path]) -> None:
    taken = sorted({str(found) for path in paths if (found := _in_the_way(target, path))})
    if taken:
        there = "exists" if len(taken) == 1 else "exist"
        raise UsageProblem(f"{', '.join(taken)} {there} already and would be overwritten; choose another directory")


def _in_the_way(target: Path, path: Path) -> Path | None:
    """Return what prevents ``path`` from being created: itself, or a file in place of one of its directories."""
    if os.path.lexists(target / path):
        return target / path
    above = [target, *(target / each for each in reversed(path.parents[:-1]))]
    return next((each for each in above if os.path.lexists(each) and not each.is_dir()), None)


def _new_file(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


def _files(directory: Traversable, path: Path = Path()) -> Iterator[tuple[Path, str]]:
    """Return the target path and the content of each file of the template."""
    for each in sorted(directory.iterdir(), key=lambda found: found.name):
        if each.is_dir():
            yield from _files(each, path / each.name)
        elif each.name.endswith(_SUFFIX):
            name = each.name.removesuffix(_SUFFIX)
            yield path / (f".{name.removeprefix(_DOT)}" if name.startswith(_DOT) else name), each.read_text("utf-8")


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _show(target: Path, written: Iterable[Path], console: Console) -> None:
    for path in written:
        console.print(Text.assemble(("  + ", "green"), str(target / path)))
    steps = [
        (f"cd {shlex.quote(str(target))}", ""),
        ("pip install -r requirements-dev.txt", ""),
        ("pytest", "its tests pass"),
        ("worker call greet -p name=Ada", ""),
        ("worker dev --reload", ""),
    ]
    console.print("\nNext:")
    for command, remark in steps[target == Path() :]:
        console.print(Text.assemble("  ", (command, "bold"), (f"   # {remark}" if remark else "", "dim")))
