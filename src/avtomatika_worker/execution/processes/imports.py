"""Makes a skill process import the user's code as the worker did."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import os
import runpy
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from avtomatika_worker.skills.loading import make_package

MAIN: str = "__mp_main__"
"""The main module's name in this process, as with `multiprocessing`: its ``if __name__`` part does not run."""


def in_skill_process() -> bool:
    """Whether this is a skill process, where no worker may run."""
    return _marked


_marked = False


def prepare_imports(path: Sequence[str], shadowed: Iterable[str], main: Mapping[str, str] | None) -> None:
    """Set the import path, and import the program's main module. Raises whatever that raises.

    ``shadowed`` is what `shadowed_modules` returned in the worker.
    """
    global _marked
    _marked = True
    _resolve_alike(path, frozenset(shadowed))
    sys.path[:] = path
    if main is not None:
        _import_main(main)


def shadowed_modules(path: Sequence[str]) -> list[str]:
    """Return the names of loaded modules that ``path`` would now resolve to other files.

    A ``calendar.py`` next to the program is not what ``import calendar`` means once the standard library's is loaded.
    """
    return [name for name, theirs in _masking(path) if name in sys.modules and not _is(sys.modules[name], theirs)]


def modules_in(directory: str) -> Iterator[tuple[str, str]]:
    """Yield the name and file of each top-level module and package in a directory; nothing if it cannot be read."""
    suffixes = tuple(importlib.machinery.all_suffixes())
    try:
        entries = sorted(os.listdir(directory or "."))  # noqa: PTH208
    except OSError:
        return
    for entry in entries:
        file = os.path.join(directory, entry)  # noqa: PTH118 - sys.path holds strings
        name = entry.partition(".")[0]
        if entry.endswith(suffixes) and entry != "__init__.py" and name.isidentifier():
            yield name, file
        elif entry.isidentifier() and os.path.isfile(inner := os.path.join(file, "__init__.py")):  # noqa: PTH113, PTH118
            yield entry, inner


def _masking(path: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and file of each module on ``path`` before the standard library, each name once."""
    stdlib = os.path.dirname(os.__file__)  # noqa: PTH120 - as sys.path has it
    seen: set[str] = set()
    for directory in path:
        if directory == stdlib:
            return
        for name, file in modules_in(directory):
            if name not in seen:
                seen.add(name)
                yield name, file


def _is(module: ModuleType, file: str) -> bool:
    theirs = getattr(module, "__file__", None)
    return theirs is not None and os.path.realpath(theirs) == os.path.realpath(file)


def _resolve_alike(path: Sequence[str], shadowed: frozenset[str]) -> None:
    """Make names that the program's directory shares with libraries resolve as they do in the worker.

    Must be called while the import path still begins with the standard library: it loads what the worker had loaded,
    and unloads what only this process has loaded so far.
    """
    for name in shadowed:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name, file in _masking(path):
        if name not in shadowed and name in sys.modules and not _is(sys.modules[name], file):
            for each in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
                del sys.modules[each]


def _import_main(main: Mapping[str, str]) -> None:
    module = ModuleType(MAIN)
    if "module" in main:
        found = runpy.run_module(main["module"], run_name=MAIN, alter_sys=True)
    else:
        found = runpy.run_path(main["file"], run_name=MAIN)
    module.__dict__.update(found)
    sys.modules["__main__"] = sys.modules[MAIN] = module


def import_package(name: str, directory: str) -> None:
    """Import a skills directory under its name in the worker."""
    make_package(name, Path(directory))
