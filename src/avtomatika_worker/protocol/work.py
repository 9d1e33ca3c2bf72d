"""Names the work behind a task: what stays the same when an orchestrator hands it out again (RXON.md, Behaviour 12).

A task's id does not: from 1.0b24 on, every hand-out of a plain task has a new one. How a retry differs from new work:

- A plain task's id is its job's (up to 1.0b23), or ``task-`` and a UUID (from 1.0b24 on). One job has at most one plain
  task at a time, so another of the same job, skill, step and params is the same work, handed out again.
- A branch of a parallel job has a bare UUID as its id, and *keeps* it when it is handed out again; siblings may have
  the same skill and params. So its id is a part of its work's name.
- An id of any other form counts as a branch's: new work is never taken for work that is known.

Orchestrators do not share jobs, so each one's address is a part of the name too.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

import msgspec
import orjson

from avtomatika_worker.protocol.coerce import as_number

if TYPE_CHECKING:
    from avtomatika_worker.protocol.messages import Task

_PLAIN_PREFIX: Final = "task-"


class WorkKey(msgspec.Struct, frozen=True):
    """The name of a task's work at one orchestrator; equal keys mean the same work.

    ``branch`` is the task id of a parallel job's branch, empty for a plain task; ``step`` is None where the
    orchestrator sends none (before 1.0b28); ``params`` is the digest of the params.
    """

    orchestrator: str
    job_id: str
    skill: str
    step: int | None
    branch: str
    params: str

    @property
    def digest(self) -> str:
        """The key as 64 hexadecimal digits: the same in every process, fit for the names of files and objects."""
        parts = [self.orchestrator, self.job_id, self.skill, self.step, self.branch, self.params]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_plain(task: Task) -> bool:
    """Whether a task is its job's only one at a time, and no branch of a parallel job."""
    return task.task_id == task.job_id or gets_new_ids(task)


def gets_new_ids(task: Task) -> bool:
    """Whether a task comes under another id each time that it is handed out."""
    return task.task_id.startswith(_PLAIN_PREFIX)


def work_key(orchestrator: str, task: Task) -> WorkKey:
    """Return the key of a task's work at ``orchestrator``, a base URL.

    The task must be as it came: what a middleware or a skill changes in its params would change the key.
    """
    step, digest = as_number(task.step), _digest(task.params or {})
    branch = "" if digest and is_plain(task) else task.task_id
    return WorkKey(orchestrator, task.job_id, task.type, None if step is None else int(step), branch, digest)


def _digest(params: dict[str, object]) -> str:
    """Return the digest of params, whatever the order of their keys; empty for some that are nested too deeply."""
    try:
        text = orjson.dumps(params, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # integers beyond 64 bits, more than 254 levels
        try:
            text = json.dumps(params, sort_keys=True).encode()
        except RecursionError:
            return ""
    return hashlib.sha256(text).hexdigest()[:32]
