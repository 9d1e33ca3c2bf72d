"""What a usage checker returns, as the official SDK's objects."""

from __future__ import annotations

from typing import Any

import msgspec


class DeviceUsage(msgspec.Struct):
    """The load of one device, in percent."""

    unit_id: str
    load_percent: float
    metrics: dict[str, Any] | None = None


class ResourcesUsage(msgspec.Struct):
    """The machine's load: percent of all cores, and GiB. `Worker.set_usage_checker` takes a function returning one."""

    cpu_load_percent: float = 0.0
    ram_used_gb: float = 0.0
    devices_usage: list[DeviceUsage] | None = None
