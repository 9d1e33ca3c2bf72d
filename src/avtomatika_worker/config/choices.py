"""Settings that are one of a few words."""

from __future__ import annotations

import enum


class LogFormat(enum.StrEnum):
    """What log records look like."""

    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """The least level that is logged."""

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
    """What decides how many of the slots are used."""

    OFF = "off"
    RESOURCE = "resource"


class SkillsOnError(enum.StrEnum):
    """What to do about a module of the skills directory that cannot be imported."""

    STOP = "stop"
    SKIP = "skip"
