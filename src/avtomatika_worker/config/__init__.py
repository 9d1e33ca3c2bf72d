"""Settings: parsed once, from values passed by the caller, into a frozen object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avtomatika_worker.config.choices import LogFormat, LogLevel, ResultDurability, SkillsOnError, SlotTunerKind
from avtomatika_worker.config.env_file import read_env_file
from avtomatika_worker.config.environment import load_settings, read_setting, unknown_variables, with_suffix
from avtomatika_worker.config.reference import SettingDoc, describe
from avtomatika_worker.config.settings import Settings
from avtomatika_worker.config.structured import OrchestratorSettings
from avtomatika_worker.policy.rotation import Mode as MultiOrchestratorMode

if TYPE_CHECKING:
    from avtomatika_worker.compat.worker_config import WorkerConfig

__all__ = [
    "LogFormat",
    "LogLevel",
    "MultiOrchestratorMode",
    "OrchestratorSettings",
    "ResultDurability",
    "SettingDoc",
    "Settings",
    "SkillsOnError",
    "SlotTunerKind",
    "WorkerConfig",
    "describe",
    "load_settings",
    "read_env_file",
    "read_setting",
    "unknown_variables",
    "with_suffix",
]


def __getattr__(name: str) -> object:
    if name == "WorkerConfig":  # where users of the official SDK look for it; it imports this package itself
        from avtomatika_worker.compat.worker_config import WorkerConfig

        return WorkerConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
