"""Makes a process import the user's code as the worker did."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from avtomatika_worker.skills.loading import make_package

MAIN: str = "__mp_main__"
"""What the program's main module is called here, as `multiprocessing` calls it: its ``if __name__`` part is not run."""


def in_skill_process() -> bool:
    """Whether this is a process for skills, where no worker may be run."""
    return _marked


_marked = False


def prepare_imports(path: Sequence[str], python_path: str | None, main: Mapping[str, str] | None) -> None:
    """Set the import path, and import the program's main module. Raises what that raises."""
    global _marked
    _marked = True
    sys.path[:] = path
    if python_path is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = python_path
    if main is not None:
        _import_main(main)


def _import_main(main: Mapping[str, str]) -> None:
    module = ModuleType(MAIN)
    if "module" in main:
        found = runpy.run_module(main["module"], run_name=MAIN, alter_sys=True)
    else:
        found = runpy.run_path(main["file"], run_name=MAIN)
    module.__dict__.update(found)
    sys.modules["__main__"] = sys.modules[MAIN] = module


def import_package(name: str, directory: str) -> None:
    """Import a skills directory under the name that it has in the worker."""
    make_package(name, Path(directory))
