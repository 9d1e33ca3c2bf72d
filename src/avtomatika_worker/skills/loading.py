"""Loads skills from a directory: every module in it is imported under a proper package name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from avtomatika_worker.errors import SkillLoadError
from avtomatika_worker.skills.blueprint import SkillBlueprint


@dataclass(slots=True)
class LoadedSkills:
    """A directory's content. ``made`` is the name of a package that could not be imported in the normal way."""

    blueprints: list[SkillBlueprint] = field(default_factory=list[SkillBlueprint])
    setups: list[Callable[[Any], object]] = field(default_factory=list[Callable[[Any], object]])
    modules: list[str] = field(default_factory=list[str])
    made: str | None = None


def load_directory(
    path: Path, *, on_error: Literal["stop", "skip"], on_problem: Callable[[SkillLoadError], None]
) -> LoadedSkills:
    """Import every module of ``path``, by name, and return their blueprints and ``setup`` functions.

    The directory is imported under its real name, such as ``app.skills``, if the import path leads to it; otherwise it
    becomes a package with the directory's name, with or without ``__init__.py``. So its modules can import each other;
    names with a leading underscore are only for that and are not scanned. A module that cannot be imported raises
    `SkillLoadError` or, with ``on_error="skip"``, is reported to ``on_problem``. A missing directory counts as empty.
    """
    loaded = LoadedSkills()
    directory = path.resolve()
    if not directory.is_dir():
        return loaded
    name = _importable_name(directory)
    package, error = _imported(
        lambda: importlib.import_module(name) if name else make_package(_own_name(directory), directory)
    )
    if package is None:
        _problem(_broken_init(directory, name), error, on_error, on_problem)
        return loaded
    if name is None:
        loaded.made = package.__name__
    _take(package, loaded)
    for info in sorted(pkgutil.iter_modules([str(directory)]), key=lambda each: each.name):
        if info.name.startswith("_"):
            continue
        module, error = _imported(partial(importlib.import_module, f"{package.__name__}.{info.name}"))
        if module is None:
            _problem(directory / info.name, error, on_error, on_problem)
        else:
            _take(module, loaded)
    return loaded


def _imported(load: Callable[[], ModuleType]) -> tuple[ModuleType | None, BaseException | None]:
    """Return a module, or what keeps it from being imported."""
    try:
        return load(), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module may raise anything
        return None, error


def _problem(
    path: Path,
    error: BaseException | None,
    on_error: Literal["stop", "skip"],
    on_problem: Callable[[SkillLoadError], None],
) -> None:
    file = path if path.exists() else path.with_suffix(".py")
    problem = SkillLoadError(str(file), f"cannot be imported: {type(error).__name__}: {error}")
    problem.__cause__ = error
    if on_error == "stop":
        raise problem from error
    on_problem(problem)


def make_package(name: str, directory: Path) -> ModuleType:
    """Import a directory as the package ``name``, which may already exist."""
    present = sys.modules.get(name)
    if present is not None:
        return present
    init = directory / "__init__.py"
    loader = importlib.machinery.SourceFileLoader(name, str(init)) if init.is_file() else None
    spec = importlib.util.spec_from_loader(name, loader, is_package=True)
    if spec is None:
        raise ImportError(f"{directory} cannot be made a package")
    spec.submodule_search_locations = [str(directory)]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if loader is not None:
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module


def _importable_name(directory: Path) -> str | None:
    """Return the name under which other modules would import the directory, or None.

    The directory above the outermost ``__init__.py`` counts, otherwise the nearest one in the import path.
    """
    top = directory.parent
    while top != top.parent and (top / "__init__.py").is_file():
        top = top.parent
    for root in [top, *directory.parents]:
        name = ".".join(directory.relative_to(root).parts)
        if all(part.isidentifier() for part in name.split(".")) and _leads_to(name, directory):
            return name
    return None


def _leads_to(name: str, directory: Path) -> bool:
    """Whether importing ``name`` imports the directory. Runs no user code."""
    parts = name.split(".")
    paths: list[str] = []
    for end, part in enumerate(parts, 1):
        present = sys.modules.get(".".join(parts[:end]))
        if present is not None:
            paths = list(getattr(present, "__path__", []))
        else:
            # By its own name alone: a package's full name would need the packages above it to be loaded.
            find = importlib.machinery.PathFinder.find_spec
            spec = find(part, paths) if end > 1 else importlib.util.find_spec(part)
            paths = list((spec and spec.submodule_search_locations) or [])
        if not paths:
            return False
    return directory in [Path(each).resolve() for each in paths]


def _broken_init(directory: Path, name: str | None) -> Path:
    """Return the ``__init__.py`` that cannot be imported: the outermost that is not loaded."""
    parts = (name or "").split(".")
    for end in range(1, len(parts)):
        if ".".join(parts[:end]) not in sys.modules:
            return directory.parents[len(parts) - end - 1] / "__init__.py"
    return directory / "__init__.py"


def _own_name(directory: Path) -> str:
    """Return the directory's name, or a unique one if that is not an identifier or already taken."""
    name = re.sub(r"\W", "_", directory.name)
    name = f"_{name}" if not name or name[0].isdigit() else name
    present = sys.modules.get(name)
    if present is not None:
        mine = directory in [Path(each).resolve() for each in getattr(present, "__path__", [])]
        return name if mine else _unique(name, directory)
    return _unique(name, directory) if importlib.util.find_spec(name) is not None else name


def _unique(name: str, directory: Path) -> str:
    return f"{name}_{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}"


def _take(module: ModuleType, loaded: LoadedSkills) -> None:
    loaded.modules.append(module.__name__)
    for value in vars(module).values():
        if isinstance(value, SkillBlueprint) and not any(value is each for each in loaded.blueprints):
            loaded.blueprints.append(value)
    setup = getattr(module, "setup", None)
    if callable(setup) and getattr(setup, "__module__", module.__name__) == module.__name__:
        loaded.setups.append(setup)
