"""Facts about the machine the worker runs on."""

from __future__ import annotations

import ipaddress
import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import psutil

from avtomatika_worker.observability.cgroup import ControlGroup
from avtomatika_worker.observability.gpu import Gpus
from avtomatika_worker.protocol.messages import HardwareDevice

_LOOPBACK: Final = "127.0.0.1"
# Addresses kept for documentation: a route to them is the route to anywhere. Connecting a UDP socket sends nothing.
_ANYWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD_PORT: Final = 9
_GIB: Final = 2**30

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a worker announces about its machine: of a container, its share. ``ram_gb`` is in GiB; 0 when unknown."""

    hostname: str
    ip_address: str
    cpu_cores: int
    ram_gb: float
    devices: tuple[HardwareDevice, ...] = ()


def listener_on(port: int) -> str | None:
    """Return which process listens on a TCP port, as its id and name; None when the system does not say."""
    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr[1] == port and each.pid:
                return f"process {each.pid} ({psutil.Process(each.pid).name()})"
    except (psutil.Error, OSError):  # only root may ask, on some systems
        pass
    return None


def detect_host(group: ControlGroup | None = None) -> HostFacts:
    """Find out about this machine. Does not raise; what cannot be found out has a harmless value."""
    share = group or ControlGroup()
    return HostFacts(
        hostname=_attempt(socket.gethostname, "") or "localhost",
        ip_address=_attempt(_outgoing_address, _LOOPBACK),
        cpu_cores=_attempt(lambda: _cpu_cores(share), 1),
        ram_gb=_attempt(lambda: round((share.memory() or psutil.virtual_memory().total) / _GIB, 2), 0.0),
        devices=_attempt(Gpus().devices, ()),
    )


def _cpu_cores(share: ControlGroup) -> int:
    """Return the cores this process may use: a limit of 1.5 CPUs is 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = share.cpus()
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def _attempt(find: Callable[[], _T], fallback: _T) -> _T:
    try:
        return find()
    except Exception:  # noqa: BLE001 - restricted containers break /proc in many ways; a fact is no reason not to start
        return fallback


def _outgoing_address() -> str:
    """Return the address that packets to the outside would carry."""
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
