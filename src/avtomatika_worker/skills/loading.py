"""Skills from a directory: every module in it is imported under a proper package name."""

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
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from avtomatika_worker.errors import SkillLoadError
from avtomatika_worker.skills.blueprint import SkillBlueprint


@dataclass(slots=True)
class LoadedSkills:
    """What a directory held."""

    blueprints: list[SkillBlueprint] = field(default_factory=list[SkillBlueprint])
    setups: list[Callable[[Any], object]] = field(default_factory=list[Callable[[Any], object]])
    modules: list[str] = field(default_factory=list[str])
    package: str | None = None


def load_directory(
    path: Path, *, on_error: Literal["stop", "skip"], on_problem: Callable[[SkillLoadError], None]
) -> LoadedSkills:
    """Import every module of ``path``, by name, and return their blueprints and ``setup`` functions.

    The directory becomes a package of its own name, with or without ``__init__.py``, so that its modules can import
    each other; names with a leading underscore are for that only and are not scanned. A module that cannot be imported
    raises `SkillLoadError`, or with ``on_error="skip"`` is told to ``on_problem``. A directory that does not exist
    holds nothing.
    """
    loaded = LoadedSkills()
    directory = path.resolve()
    if not directory.is_dir():
        return loaded
    try:
        package = _package(directory)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's __init__.py may raise anything
        _problem(directory / "__init__.py", error, on_error, on_problem)
        return loaded
    loaded.package = package.__name__
    _take(package, loaded)
    for info in sorted(pkgutil.iter_modules([str(directory)]), key=lambda each: each.name):
        if info.name.startswith("_"):
            continue
        try:
            module = importlib.import_module(f"{package.__name__}.{info.name}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module may raise anything
            _problem(directory / info.name, error, on_error, on_problem)
        else:
            _take(module, loaded)
    return loaded


def _problem(
    path: Path, error: BaseException, on_error: Literal["stop", "skip"], on_problem: Callable[[SkillLoadError], None]
) -> None:
    file = path if path.exists() else path.with_suffix(".py")
    problem = SkillLoadError(str(file), f"cannot be imported: {type(error).__name__}: {error}")
    problem.__cause__ = error
    if on_error == "stop":
        raise problem from error
    on_problem(problem)


def _package(directory: Path) -> ModuleType:
    """Import the directory as a package."""
    return make_package(_package_name(directory), directory)


def make_package(name: str, directory: Path) -> ModuleType:
    """Import a directory as the package ``name``, which may be there already."""
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


def _package_name(directory: Path) -> str:
    """Return the directory's own name; a unique one when that is no identifier or belongs to something else."""
    name = re.sub(r"\W", "_", directory.name)
    name = f"_{name}" if not name or name[0].isdigit() else name
    present = sys.modules.get(name)
    if present is not None:
        mine = str(directory) in [str(Path(each).resolve()) for each in getattr(present, "__path__", [])]
        return name if mine else _unique(name, directory)
    found = importlib.util.find_spec(name)
    if found is None or str(directory) in [
        str(Path(each).resolve()) for each in found.submodule_search_locations or []
    ]:
        return name
    return _unique(name, directory)


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
