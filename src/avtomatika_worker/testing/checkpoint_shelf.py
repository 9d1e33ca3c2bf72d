"""The checkpoints of tasks under test: put there before a task begins, looked at when it has ended."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import orjson

from avtomatika_worker.checkpoints.checkpoint_service import Checkpoints
from avtomatika_worker.checkpoints.keeper import Keeper, StartTask
from avtomatika_worker.checkpoints.saved_state import written
from avtomatika_worker.devserver import EmbeddedOrchestrator, JobRecord
from avtomatika_worker.devserver.releases import release
from avtomatika_worker.devserver.task_payloads import task_bytes
from avtomatika_worker.execution.children import Children
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.protocol.work import work_key
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.registry import SkillRegistry


def _no_files() -> Mapping[str, bytes]:
    return {}


@dataclass(frozen=True, slots=True)
class SeenCheckpoint:
    """A checkpoint: its ``state`` as plain JSON or bytes, and the content of its ``files`` by name."""

    state: Any
    files: Mapping[str, bytes] = field(default_factory=_no_files)


def temporary_directory(owner: object) -> Path:
    """Make a directory that lasts as long as ``owner``."""
    directory = Path(tempfile.mkdtemp(prefix="avtomatika-state-"))
    weakref.finalize(owner, shutil.rmtree, directory, ignore_errors=True)
    return directory


class CheckpointShelf:
    """The checkpoints of a worker, at an orchestrator. ``make`` makes them, of files and what begins asyncio tasks."""

    def __init__(
        self,
        files: Files,
        make: Callable[[Files, StartTask], Checkpoints],
        orchestrator: EmbeddedOrchestrator,
        skills: SkillRegistry,
    ) -> None:
        self._orchestrator = orchestrator
        self._skills = skills
        self._children = Children()
        self._files = files
        self._checkpoints = make(files, self._children.start)

    async def put(self, skill: str, params: Mapping[str, Any], given: object) -> str:
        """Store a checkpoint for a task that does not exist yet, and return the id that its job is to have.

        ``given`` is a `SeenCheckpoint`, or a state alone. Raises what ``ctx.checkpoint.save`` raises.
        """
        seen = given if isinstance(given, SeenCheckpoint) else SeenCheckpoint(given)
        job = JobRecord(number=0, job_id=str(uuid.uuid4()), skill=skill, params={}, submitted_at=0.0)
        job.params = orjson.loads(orjson.dumps(to_plain(params)))
        keeper, files = self._keeper(job)
        try:
            for name, content in seen.files.items():
                await self._files.disk.run(files.workspace.write, name, content, "wb")
            await keeper.save(written(seen.state), tuple(seen.files))
        finally:
            await self._done(keeper, files)
        return job.job_id

    async def left_by(self, job: JobRecord) -> SeenCheckpoint | None:
        """Return the checkpoint that a job has left, None for none."""
        keeper, files = self._keeper(job)
        try:
            found = await keeper.load()
            if found is None:
                return None
            contents = {each: await self._files.disk.run(files.workspace.read, each, "rb") for each in found.files}
            return SeenCheckpoint(found.state.read(), contents)
        finally:
            await self._done(keeper, files)

    async def close(self) -> None:
        """Release everything."""
        await self._children.cancel()
        self._files.close()

    def _keeper(self, job: JobRecord) -> tuple[Keeper, FileOperations]:
        job = replace(job, task_id=job.task_id or job.job_id)
        payload = task_bytes(job, release(self._orchestrator.version), 0.0, None)
        task = msgspec.json.decode(payload, type=Task)
        skill = self._skills.get(job.skill)
        version = skill.contract.version if skill is not None else None
        files = self._files.for_task(job.job_id, "checkpoint", lambda _: None)
        work = work_key(self._orchestrator.url, task)
        return self._checkpoints.keeper(work, version, task.task_id, lambda: files), files

    @staticmethod
    async def _done(keeper: Keeper, files: FileOperations) -> None:
        await keeper.settle(wanted=True)
        await files.remove()
