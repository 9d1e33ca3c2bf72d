"""Virtual environments that hold a published orchestrator each; made once, then kept in a cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALL_TIMEOUT = 280.0
_OFFICIAL_WORKER = "avtomatika-worker"


class InstallationError(Exception):
    """An orchestrator that cannot be installed."""


def cache_directory() -> Path:
    """Return where the environments are kept: ``AVTOMATIKA_E2E_CACHE``, else in the project."""
    chosen = os.environ.get("AVTOMATIKA_E2E_CACHE")
    return Path(chosen).expanduser().resolve() if chosen else ROOT / ".cache" / "orchestrators"


def python_of(version: str, *extras: str) -> Path:
    """Return the interpreter that has ``avtomatika`` of this version with ``extras``, installing it where needed.

    Runs at the same time wait for each other; an environment that was left half-made is made again.
    """
    name = "-".join((version, *extras, "py{}.{}".format(*sys.version_info)))
    return _made(name, f"avtomatika[{','.join((*extras, 'telemetry'))}]=={version}")


def official_worker_python_of(version: str, *extras: str) -> Path:
    """Return the interpreter that has the official worker SDK of this version, installing it where needed."""
    name = "-".join(("worker", version, *extras, "py{}.{}".format(*sys.version_info)))
    return _made(name, f"{_OFFICIAL_WORKER}[{','.join(extras)}]=={version}")


def _made(name: str, requirement: str) -> Path:
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    directory = cache / name
    with locked(cache / f"{name}.lock"):
        if not _complete(directory, requirement):
            shutil.rmtree(directory, ignore_errors=True)
            _make(directory, requirement)
    return _python(directory)


def _make(directory: Path, requirement: str) -> None:
    _command(requirement, sys.executable, "-m", "venv", str(directory))
    pip = (str(_python(directory)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _command(requirement, *pip, requirement)
    # Written last: what has no marker was interrupted.
    _marker(directory).write_text(_fingerprint(requirement))


def _complete(directory: Path, requirement: str) -> bool:
    marker = _marker(directory)
    return _python(directory).exists() and marker.exists() and marker.read_text() == _fingerprint(requirement)


def _fingerprint(requirement: str) -> str:
    return f"{requirement} on Python {sys.version}"


def _python(directory: Path) -> Path:
    return directory / "bin" / "python"


def _marker(directory: Path) -> Path:
    return directory / ".complete"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the system when the process dies
        yield


def _command(requirement: str, *command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
        problem = (done.stderr or done.stdout).strip() if done.returncode else ""
        failed = done.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        problem, failed = str(error), True
    if failed:
        raise InstallationError(
            f"{requirement} could not be installed, and the end-to-end tests need it.\n"
            f"Command: {' '.join(command)}\n{problem[-2000:]}\n"
            "Let pip reach a package index, or name a directory that has the environments in AVTOMATIKA_E2E_CACHE;"
            " pytest -m 'not e2e' leaves these tests out."
        )
