"""What some tests need that the tests' own packages do not bring. Where it is missing they are skipped.

CONTRIBUTING.md lists these programs and groups, and ``.ci/run`` installs them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

PROGRAMS: Final[Mapping[str, str | None]] = {
    "chromium": "chromium",
    "ffmpeg": "ffmpeg",
    "fish": "fish",
    "kubectl": None,
    "make": "make",
    "npm": "npm",
    "openssl": "openssl",
    "promtool": "prometheus",
    "zsh": "zsh",
}
"""Programs, each with the package of Debian that has it; that of kubectl is too old."""

GROUPS: Final[Mapping[str, str]] = {
    "axe_playwright_python": "docs",
    "check_jsonschema": "check",
    "hadolint": "check",
    "kubernetes_validate": "check",
    "mkdocs": "docs",
    "mypy": "check",
    "pyright": "check",
    "sklearn": "examples",
    "twine": "dist",
    "zizmor": "check",
}
"""Modules and programs of the dependency groups that have them: ``make setup`` installs those."""

NO_MODULES: Final = ("hadolint", "zizmor")
"""Those of the groups that are programs."""


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip the test where one of these is not installed."""
    missing = [name for name in names if not _installed(name)]
    return pytest.mark.skipif(bool(missing), reason="; ".join(map(why_missing, missing)))


def why_missing(name: str) -> str:
    """Return what is missing, and what brings it."""
    if name in PROGRAMS:
        package = PROGRAMS[name]
        return f"{name} is not installed" + (f" (Debian's package {package})" if package else "")
    return f"{name} is not installed (make setup brings the dependency group {GROUPS[name]!r})"


def program(name: str) -> str | None:
    """Return the path of a program beside this interpreter, or on the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def _installed(name: str) -> bool:
    return (find_spec(name) if name in GROUPS and name not in NO_MODULES else program(name)) is not None
