"""Differences between orchestrator releases that do not concern a worker (RXON.md)."""

from __future__ import annotations

from dataclasses import dataclass

from avtomatika_worker.protocol.dialects import Dialect, choose


@dataclass(frozen=True, slots=True)
class Release:
    """The facts of one release's behavior; ``dialect`` holds those of its protocol."""

    dialect: Dialect
    catalogue_is_availability: bool
    """``supported_skills`` lists what can start now (up to 1.0b8)."""
    job_id_is_task_id: bool
    """A plain job's task has the same id as the job (up to 1.0b9)."""
    empty_containers_needed: bool
    """Dispatching fails after a registration without its containers (RXON.md: 1.0b7)."""
    tasks_keep_nulls: bool
    """Tasks are written with nulls (up to 1.0b9); later ones are canonical."""
    float_timestamps: bool
    """Tasks carry a float ``timestamp`` (1.0b10 … 1.0b16)."""
    limits_first: bool
    """Rate limits precede all checks and count an address's calls; later, a worker's calls that can be read."""
    unknown_ids_are_stale: bool
    """An id in ``current_tasks`` that is not a job's is ordered cancelled (1.0b7 … 1.0b11)."""
    tokens_without_mtls: bool
    """``/auth/token`` works without a client certificate (after 1.0b7)."""
    steps: bool
    """Tasks carry ``step`` (1.0b17)."""


def release(version: str) -> Release:
    """Return the facts of a protocol version. Raises ValueError for an unknown one."""
    choice = choose(version)
    if not choice.exact:
        raise ValueError(f"unknown protocol version {version!r}: 1.0b7 to 1.0b17 are known")
    number = int(version.removeprefix("1.0b"))
    return Release(
        dialect=choice.dialect,
        catalogue_is_availability=number <= 8,
        job_id_is_task_id=number <= 9,
        empty_containers_needed=number <= 9,
        tasks_keep_nulls=number <= 9,
        float_timestamps=10 <= number <= 16,
        limits_first=number <= 10,
        unknown_ids_are_stale=number <= 11,
        tokens_without_mtls=number > 7,
        steps=number >= 17,
    )
