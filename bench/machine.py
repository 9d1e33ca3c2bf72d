"""Where and with what the figures came about."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil

from bench.sides import ROOT, official

_PACKAGES: Final = ("avtomatika-worker", "httptools", "msgspec", "orjson", "uvloop", "aiohttp")


def machine_facts() -> dict[str, Any]:
    """Return the machine's facts and the versions of what is compared; nothing that names the machine itself."""
    return {**local_facts(), "official": _official_versions()}


def local_facts() -> dict[str, Any]:
    """Return the machine's facts and the versions of what this worker stands on."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "load_before": os.getloadavg(),
    }


def slug(*parts: object) -> str:
    """Return a name of files: what names of files may not contain becomes a hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, parts)).lower()).strip("-")


def machine_name() -> str:
    """Return the name of this kind of machine, such as ``amd-epyc-2-cores``."""
    return slug(_cpu(), os.cpu_count(), "cores")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return done.stdout.strip()


def _official_versions() -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json, platform; names = ('avtomatika-worker', 'rxon', 'aiohttp', 'orjson');"
        "print(json.dumps({'python': platform.python_version(), **{n: m.version(n) for n in names}}))"
    )
    done = subprocess.run([official().python, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
