"""The settings for long tasks: checkpoints, and notices that the machine is taken away. A part of ``Settings``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from avtomatika_worker.checkpoints.sealing import key_of
from avtomatika_worker.config import kinds
from avtomatika_worker.config.declaring import setting
from avtomatika_worker.config.kinds import Kind

FILE: Final = "file:"
SIGTERM: Final = "sigterm"
_SOURCES: Final = ("aws", "gcp", "azure", SIGTERM)


def _key() -> Kind:
    """A key for encryption."""

    def check(value: str) -> None:
        key_of(value)

    return Kind(str, (str,), check)


def _host() -> Kind:
    """A host, perhaps with a port."""

    def parse(value: str) -> str:
        try:
            plain = kinds.parse_url(f"http://{value}") == f"http://{value}" and "/" not in value
        except ValueError:
            plain = False
        if not plain:
            raise ValueError("must be HOST or HOST:PORT")
        return value

    return Kind(parse, (str,))


def _notices() -> Kind:
    """Sources of notices, separated by commas."""

    def parse(value: str) -> tuple[str, ...]:
        return tuple(each.strip() for each in value.split(",") if each.strip())

    def check(value: tuple[str, ...]) -> None:
        for each in value:
            if each not in _SOURCES and not (each.startswith(FILE) and each != FILE):
                raise ValueError(f"{kinds.presentable(each)} must be one of {', '.join(_SOURCES)} and file:PATH")

    return Kind(parse, (tuple,), check)


@dataclass(frozen=True, kw_only=True)  # two bases with slots cannot be joined
class ResumptionSettings:
    """How often tasks save what they have done, for how long that is kept, and what ends a machine."""

    checkpoint_interval: float = setting(
        "CHECKPOINT_INTERVAL",
        kinds.number(least=0),
        "Least time between two checkpoints of a task: what is saved sooner is stored when the time has come.",
        default=30.0,
        unit="s",
    )
    checkpoint_max_age: float = setting(
        "CHECKPOINT_MAX_AGE",
        kinds.number(above=0),
        "Age at which a checkpoint is removed that no task has needed; those of accepted results go at once.",
        default=7 * 86400.0,
        unit="s",
    )
    checkpoint_max_bytes: int = setting(
        "CHECKPOINT_MAX_BYTES",
        kinds.integer(least=1024),
        "Size limit for a checkpoint's state and files together; a larger one is not stored.",
        default=10 * 1024**3,
        unit="bytes",
    )
    checkpoint_key: str | None = setting(
        "CHECKPOINT_KEY",
        _key(),
        "Key to encrypt checkpoints with (AES-256-GCM): 32 random bytes, as 64 hexadecimal digits or in base64. Workers"
        " that go on with each other's tasks need the same. Needs the extra `[encryption]`.",
        default=None,
        secret=True,
        unset="checkpoints are not encrypted",
    )
    preemption: tuple[str, ...] = setting(
        "WORKER_PREEMPTION",
        _notices(),
        "What announces that this machine is taken away, separated by commas: `aws`, `gcp` and `azure` (the metadata"
        " service of the cloud), `file:PATH` (that file appears) and `sigterm` (as Kubernetes does it). Tasks"
        " that can finish in time do, the others go on elsewhere.",
        default=(),
        unset="nothing does",
    )
    aws_metadata_url: str = setting(
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        kinds.url(),
        "Metadata service of `WORKER_PREEMPTION=aws`, read as by AWS's own SDKs: another one to rehearse an"
        " interruption with, or the one at IPv6's address.",
        default="http://169.254.169.254",
    )
    gcp_metadata_host: str = setting(
        "GCE_METADATA_HOST",
        _host(),
        "Metadata server of `WORKER_PREEMPTION=gcp`, `HOST` or `HOST:PORT`, read as by Google's own libraries.",
        default="metadata.google.internal",
    )
