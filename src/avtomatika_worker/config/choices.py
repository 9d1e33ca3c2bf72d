"""Settings with a fixed set of values."""

from __future__ import annotations

import enum


class LogFormat(enum.StrEnum):
    """The form of log records."""

    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """The lowest level that is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class ResultDurability(enum.StrEnum):
    """When a result is written to disk."""

    ON_FAILURE = "on_failure"
    ALWAYS = "always"
    OFF = "off"


class SlotTunerKind(enum.StrEnum):
    """How the number of slots in use is decided."""

    OFF = "off"
    RESOURCE = "resource"


class SkillsOnError(enum.StrEnum):
    """What to do about a module in the skills directory that cannot be imported."""

    STOP = "stop"
    SKIP = "skip"
