"""Facts about the machine the worker runs on."""

from __future__ import annotations

import ipaddress
import math
import os
import socket
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
import psutil

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.observability.cgroup import ControlGroup
from avtomatika_worker.observability.gpu import Gpus
from avtomatika_worker.protocol.messages import HardwareDevice

_LOOPBACK: Final = "127.0.0.1"
# Documentation addresses: the route to them is the default route. Connecting a UDP socket sends nothing.
_ANYWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD_PORT: Final = 9
_GIB: Final = 2**30
_COMMAND_LIMIT: Final = 200

_T = TypeVar("_T")


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts a worker announces about its machine, or container. ``ram_gb`` is in GiB; 0 if unknown."""

    hostname: str
    ip_address: str
    cpu_cores: int
    ram_gb: float
    devices: tuple[HardwareDevice, ...] = ()


def detect_host(group: ControlGroup | None = None) -> HostFacts:
    """Return the facts about this machine. Never raises; unknown facts get a harmless value."""
    share = group or ControlGroup()
    return HostFacts(
        hostname=_attempt(socket.gethostname, "") or "localhost",
        ip_address=_attempt(_outgoing_address, _LOOPBACK),
        cpu_cores=_attempt(lambda: _cpu_cores(share), 1),
        ram_gb=_attempt(lambda: round((share.memory() or psutil.virtual_memory().total) / _GIB, 2), 0.0),
        devices=_attempt(Gpus().devices, ()),
    )


def listener_at(port: int) -> str | None:
    """Return a description of the process listening on a TCP port of this machine, or None if unknown."""
    return _attempt(lambda: _listener_at(port), None)


def _listener_at(port: int) -> str | None:
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.pid and port in each.laddr:
            process = psutil.Process(each.pid)
            command = " ".join(process.cmdline())[:_COMMAND_LIMIT]
            orphan = ", left behind by a process that has ended" if process.ppid() <= 1 else ""
            return f"process {each.pid} ({command}{orphan})"
    return None


def _cpu_cores(share: ControlGroup) -> int:
    """Return the number of cores this process may use: a limit of 1.5 CPUs counts as 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = share.cpus()
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def _attempt(find: Callable[[], _T], fallback: _T) -> _T:
    # Restricted containers break /proc in many ways; a fact is no reason not to start.
    return attempted(find, lambda _: fallback)


def _outgoing_address() -> str:
    """Return the source address of packets to the outside."""
    for family, anywhere in _ANYWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((anywhere, _DISCARD_PORT))
                address = str(probe.getsockname()[0])
        except OSError:
            continue
        if not ipaddress.ip_address(address).is_unspecified:
            return address
    return _LOOPBACK
