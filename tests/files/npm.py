"""Servers from npm, installed once into a cache; the tests that need one are skipped where npm cannot install it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.environments import cache_directory, locked
from needs import program, why_missing

INSTALL_TIMEOUT = 240.0
START_TIMEOUT = 30.0


def binary(package: str, version: str, name: str) -> Path:
    """Return a command of a package of npm's. Skips the test where it cannot be had."""
    npm = program("npm")
    if npm is None:
        pytest.skip(why_missing("npm"))
    directory = cache_directory().parent / "npm" / f"{package}-{version}"
    directory.mkdir(parents=True, exist_ok=True)
    command = directory / "node_modules" / ".bin" / name
    complete = directory / ".complete"
    with locked(directory / ".lock"):
        if not complete.exists():
            install = [npm, "install", "--no-audit", "--no-fund", "--omit=dev", f"{package}@{version}"]
            # A package.json of its own: without one, npm would look for a project in the directories above.
            (directory / "package.json").write_text("{}")
            try:
                done = subprocess.run(
                    install, cwd=directory, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"npm did not install {package} within {INSTALL_TIMEOUT:.0f} s")
            if done.returncode:
                pytest.skip(f"npm cannot install {package}: {done.stderr.strip()[-300:]}")
            complete.touch()
    return command


@contextmanager
def served(command: list[str | Path], port: int) -> Iterator[None]:
    """Keep a server running, which listens on the port."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    quiet = subprocess.DEVNULL
    with subprocess.Popen([str(part) for part in command], stdout=quiet, stderr=quiet, env=environment) as process:
        try:
            until = time.monotonic() + START_TIMEOUT
            while not _listens(port):
                assert process.poll() is None, f"{command[0]} has ended with {process.returncode}"
                assert time.monotonic() < until, f"{command[0]} does not listen"
                time.sleep(0.05)
            yield
        finally:
            process.kill()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
