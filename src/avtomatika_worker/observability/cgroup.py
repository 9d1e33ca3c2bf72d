"""Reads this process's control group: a container's share of the machine (Linux, versions 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

_ROOT: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_UNLIMITED: Final = 2**60
"""Bytes from which a version 1 limit means none: it uses the largest number of pages instead of a word."""


class _Limit(msgspec.Struct, frozen=True):
    """A limit, and the directory of the group it applies to: everything in there shares it."""

    value: float
    group: Path


class ControlGroup:
    """Reads the group's files at every call, as limits may change while a process runs.

    Without a limit, a control group or permission, the answer is None.
    """

    def __init__(self, root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> None:
        self._root = root
        self._membership = membership

    def cpus(self) -> float | None:
        """Return the limit in CPUs, such as 1.5."""
        limit = self._cpu_limit()
        return None if limit is None else limit.value

    def cpu_seconds(self) -> float | None:
        """Return the CPU time used by everything under the limit, in seconds."""
        limit = self._cpu_limit()
        if limit is None:
            return None
        if self._is_v2:
            used = _number(_fields(limit.group / "cpu.stat").get("usage_usec", ""))
            return None if used is None else used / 1e6
        group = self._directory("cpuacct", limit.group)
        used = _number(_text(group / "cpuacct.usage"))
        return None if used is None else used / 1e9

    def memory(self) -> int | None:
        """Return the memory limit in bytes."""
        limit = self._memory_limit()
        return None if limit is None else int(limit.value)

    def memory_used(self) -> int | None:
        """Return the memory used by everything under the limit, in bytes, without the reclaimable page cache."""
        limit = self._memory_limit()
        if limit is None:
            return None
        usage, cache = (
            ("memory.current", "inactive_file") if self._is_v2 else ("memory.usage_in_bytes", "total_inactive_file")
        )
        used = _number(_text(limit.group / usage))
        droppable = _number(_fields(limit.group / "memory.stat").get(cache, "")) or 0
        return None if used is None else max(0, int(used - droppable))

    # ------------------------------------------------------------------------------------------------ inside

    @property
    def _is_v2(self) -> bool:
        return (self._root / "cgroup.controllers").exists()

    def _cpu_limit(self) -> _Limit | None:
        return self._tightest("cpu", _cpus_v2 if self._is_v2 else _cpus_v1)

    def _memory_limit(self) -> _Limit | None:
        return self._tightest("memory", _memory_v2 if self._is_v2 else _memory_v1)

    def _tightest(self, controller: str, read: Callable[[Path], float | None]) -> _Limit | None:
        """Return the lowest limit among the process's group and its ancestors."""
        limits = [_Limit(value, group) for group in self._groups(controller) if (value := read(group)) is not None]
        return min(limits, key=lambda limit: limit.value, default=None)

    def _groups(self, controller: str) -> list[Path]:
        top = self._root if self._is_v2 else self._root / controller
        path = self._paths().get("" if self._is_v2 else controller, "/").lstrip("/")
        # In a container, the path is often the host's and the group itself is mounted: then only ``top`` exists.
        leaf = top / path
        return [each for each in (leaf, *leaf.parents) if each.is_relative_to(top) and each.is_dir()]

    def _paths(self) -> dict[str, str]:
        """Return controller → path of the process's group; version 2's controller is the empty text."""
        paths: dict[str, str] = {}
        for line in _text(self._membership).splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            paths.update(dict.fromkeys(controllers.split(","), path))
        return paths

    def _directory(self, controller: str, like: Path) -> Path:
        """Return the group of another controller (version 1) in the same place as ``like`` in its own."""
        return self._root / controller / Path(*like.relative_to(self._root).parts[1:])


def _cpus_v2(group: Path) -> float | None:
    quota, _, period = _text(group / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _cpus_v1(group: Path) -> float | None:
    return _ratio(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))


def _memory_v2(group: Path) -> float | None:
    return _number(_text(group / "memory.max"))


def _memory_v1(group: Path) -> float | None:
    limit = _number(_text(group / "memory.limit_in_bytes"))
    return None if limit is None or limit >= _UNLIMITED else limit


def _ratio(quota: str, period: str) -> float | None:
    used, of = _number(quota), _number(period)
    return used / of if used is not None and of and used > 0 else None


def _number(text: str) -> float | None:
    """Read a number; "max" and anything else give None."""
    return float(text) if text.lstrip("-").isdecimal() else None


def _fields(file: Path) -> dict[str, str]:
    pairs = (line.split() for line in _text(file).splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""
