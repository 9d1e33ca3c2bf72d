"""Makes what waits for notices that this machine is taken away, from a worker's settings."""

from __future__ import annotations

from pathlib import Path

from avtomatika_worker.config import Settings
from avtomatika_worker.config.resumption import FILE, SIGTERM
from avtomatika_worker.monitoring.clouds import AwsNotices, AzureNotices, GcpNotices
from avtomatika_worker.monitoring.notices import FileNotices, Notices, NoticeSource
from avtomatika_worker.world import REAL, World


def make_notices(settings: Settings, world: World = REAL) -> Notices | None:
    """Return it; None if nothing is to be waited for."""
    sources = sources_of(settings, world)
    return Notices(sources, world) if sources else None


def sources_of(settings: Settings, world: World = REAL) -> list[NoticeSource]:
    """Return the sources that are to be watched. SIGTERM is none: it comes by itself."""
    return [_source(each, settings, world) for each in settings.preemption if each != SIGTERM]


def _source(name: str, settings: Settings, world: World) -> NoticeSource:
    match name:
        case "aws":
            return AwsNotices(world, base=settings.aws_metadata_url)
        case "gcp":
            return GcpNotices(base=f"http://{settings.gcp_metadata_host}")
        case "azure":
            return AzureNotices(world)
        case _:
            return FileNotices(Path(name.removeprefix(FILE)))
