"""Tasks as each release writes them (RXON.md, "TaskPayload")."""

from __future__ import annotations

from typing import Any

import orjson

from avtomatika_worker.devserver.releases import Release
from avtomatika_worker.devserver.snapshots import JobRecord
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.signing import Signer


def task_bytes(job: JobRecord, release: Release, now: float, signer: Signer | None) -> bytes:
    """Write a task that was handed out; ``signer`` signs it if the release signs tasks."""
    task: dict[str, Any] = {
        "job_id": job.job_id,
        "task_id": job.task_id,
        "type": job.skill,
        "params": job.params,
        "tracing_context": job.tracing_context or {},
        "params_metadata": job.params_metadata,
        "priority": job.priority,
        "deadline": job.deadline,
        "security": job.security,
        "metadata": job.metadata,
    }
    if job.policy is not None:
        task["policy"] = job.policy
    if release.tasks_keep_nulls:
        return orjson.dumps(task)
    task["timestamp"] = now if release.float_timestamps else int(now)
    if release.skill_version:
        task["skill_version"] = "1.0.0"  # where the skill announces none
    if release.steps:
        task["step"] = 1
    canonical = canonical_bytes(task, release.dialect)
    if signer is None or not release.dialect.signed_tasks:
        return canonical
    return b'%b,"sig":"%b"}' % (canonical[:-1], signer.sign(canonical).encode())
