"""What a program reads from `WorkerConfig` if it has not set it: the environment's values, in the official form."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from avtomatika_worker.compat.former_settings import FIELDS, MEANINGLESS_DEFAULTS, RESOURCES
from avtomatika_worker.config.environment import extra_capabilities, read_setting
from avtomatika_worker.config.structured import OrchestratorSettings
from avtomatika_worker.narrowing import is_dict, is_mapping, is_tuple
from avtomatika_worker.observability.host import detect_host

Environ = Mapping[str, str]


def read_official(environ: Environ, name: str) -> Any:
    """Return the value of an attribute. Raises `ConfigError` if its variable is invalid."""
    if name in MEANINGLESS_DEFAULTS:
        return MEANINGLESS_DEFAULTS[name]
    read = _READERS.get(name)
    return read(environ) if read is not None else _official(read_setting(environ, FIELDS[name]))


def _resources(environ: Environ) -> dict[str, Any]:
    host = detect_host()
    return {
        key: _official(read_setting(environ, field) or getattr(host, field, [])) for key, field in RESOURCES.items()
    }


def _software(environ: Environ) -> dict[str, Any]:
    found = _official(read_setting(environ, "installed_software"))
    return found or {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def _orchestrators(environ: Environ) -> Any:
    listed = read_setting(environ, "orchestrators_config")
    return _official(listed or (OrchestratorSettings(url=read_setting(environ, "orchestrator_url"), priority=1),))


_READERS: Final[Mapping[str, Callable[[Environ], Any]]] = {
    "HOSTNAME": lambda _: detect_host().hostname,
    "IP_ADDRESS": lambda _: detect_host().ip_address,
    "RESOURCES": _resources,
    "INSTALLED_SOFTWARE": _software,
    "WORKER_ID": lambda environ: environ.get("WORKER_ID", "").strip() or f"worker-{uuid.uuid4()}",
    "WORKER_TOKEN": lambda environ: read_setting(environ, "individual_token") or read_setting(environ, "token"),
    "ORCHESTRATORS": _orchestrators,
    "EXTRA_CAPABILITIES": extra_capabilities,
}


def plain_fields(value: Any) -> Any:
    """Return an object's fields that are not None. Raises TypeError if it has no fields."""
    fields: Any = dict(value) if is_mapping(value) else msgspec.to_builtins(value)
    if not is_dict(fields):
        raise TypeError(f"one item is of type {type(value).__name__}")
    return {key: each for key, each in fields.items() if each is not None}


def _official(value: Any) -> Any:
    """Return a setting's value in the plain form that the official SDK uses."""
    if isinstance(value, OrchestratorSettings):
        fields = {"url": value.url, "priority": value.priority, "weight": value.weight}
        return {**fields, "token": value.token} if value.token else fields
    if isinstance(value, Path):
        return str(value)
    if is_mapping(value):
        return dict(value)
    if is_tuple(value):
        return [_official(each) for each in value]
    if isinstance(value, msgspec.Struct):
        return plain_fields(value)
    return str(value) if isinstance(value, str) else value
