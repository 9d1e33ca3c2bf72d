"""Limits the size of results: large values move to the object store; if that does not help, the task fails."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import DependencyMissingError, PermanentError
from avtomatika_worker.execution.context import TaskContext, controls_of
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.encoding import EncodedOutcome, encoded
from avtomatika_worker.execution.outcome import Cancelled, Failed, Succeeded
from avtomatika_worker.execution.task_boundary import TaskBoundary
from avtomatika_worker.files.offload import name_of
from avtomatika_worker.skills.contract import SUCCESS
from avtomatika_worker.skills.skill import Skill

_log: Final = logging.getLogger("avtomatika_worker.task")

DIRECTORY: Final = "oversized"
"""The directory, among the task's files, for values that are too large."""

_URI_SIZE: Final = 1_000
"""Upper limit on a stored value's URI, in bytes: S3 keys have up to 1,024, and ours are shorter."""

_EXAMPLE: Final = "s3://bucket/job/task/oversized/0.json"
"""Placeholder for the URI of a value that is not stored yet."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ResultBound(msgspec.Struct, frozen=True):
    """Keeps an outcome within ``limit`` bytes of JSON; None for no limit."""

    limit: int | None = None

    def holds(self, ended: EncodedOutcome) -> bool:
        """Whether an outcome is within the limit."""
        return self.limit is None or ended.size <= self.limit

    async def enforce(self, ctx: TaskContext, ended: EncodedOutcome) -> EncodedOutcome:
        """Return an outcome that is small enough to send and still matches the skill's output schema.

        Raises nothing but ``CancelledError``.
        """
        controls, size = controls_of(ctx), ended.size
        if isinstance(ended.outcome, Cancelled):
            return ended
        if isinstance(ended.outcome, Failed):
            text = f"its data and details exceeded MAX_RESULT_BYTES={self.limit} and were dropped"
            message = f"{ended.outcome.message} ({text})"
            return EncodedOutcome(
                replace(ended.outcome, message=message, data={}, details={}, metadata=None, data_metadata={})
            )
        with TaskBoundary() as boundary:
            try:
                stored = await self._offloaded(controls, ended.outcome, size)
            finally:
                if controls.used_files is not None:
                    await controls.used_files.remove()
            _log.warning(
                "the result is %d bytes long, more than MAX_RESULT_BYTES=%d; moved to the object store: %s",
                size,
                self.limit,
                ", ".join(key for key in stored.data if stored.data[key] is not ended.outcome.data[key]),
                extra={"action": "result_too_large", "skill": controls.task.type, "bytes": size},
            )
            return encoded(stored, controls)
        return EncodedOutcome(boundary.failure)

    async def _offloaded(self, controls: Controls, outcome: Succeeded, size: int) -> Succeeded:
        """Move the largest values of the data to the store, as many as necessary."""
        skill = controls.skill
        checked = skill is not None and outcome.status == SUCCESS and skill.allows_output(outcome.data)
        data, known = dict(outcome.data), dict(outcome.data_metadata)
        for number, key in enumerate(self._chosen(outcome.data, skill if checked else None, size)):
            try:
                uri = await _stored(controls, number, key, data[key])
            except DependencyMissingError as error:
                raise self._too_large(size, f": {error}") from None
            data[key] = uri
            described = controls.files.stored(uri)
            if described is not None:
                known[name_of((key,))] = described
        return replace(outcome, data=data, data_metadata=known)

    def _chosen(self, data: Mapping[str, Any], skill: Skill | None, size: int) -> list[str]:
        """Return the keys of the values to move, largest first. Raises `PermanentError` when that is not enough.

        A value is moved only if the ``skill``'s output schema allows a URI in its place.
        """
        limit = self.limit or 0
        sizes = {key: len(msgspec.json.encode(value)) for key, value in data.items()}
        chosen, kept = list[str](), list[str]()
        for key in sorted(sizes, key=lambda each: -sizes[each]):
            if _size_left(size, sizes, chosen) <= limit or sizes[key] <= _URI_SIZE:
                break
            reduced = {**data, key: _EXAMPLE}
            if skill is None or skill.allows_output(reduced):
                data = reduced
                chosen.append(key)
            else:
                kept.append(key)
        if _size_left(size, sizes, chosen) <= limit:
            return chosen
        if not kept:
            raise self._too_large(size, "; its data has no large values that could move to the object store")
        where = name_of(("data", kept[0]))
        raise self._too_large(
            size,
            f"; {where} cannot move to the object store because the skill's output schema allows no URI in its place:"
            " return a file (a Path), or make the type a union with S3Uri",
        )

    def _too_large(self, size: int, why: str) -> PermanentError:
        text = f"the result is {size} bytes long, but at most {self.limit} (MAX_RESULT_BYTES) can be sent{why}"
        return PermanentError(text, {"bytes": size, "limit": self.limit})


def _size_left(size: int, sizes: Mapping[str, int], chosen: Sequence[str]) -> int:
    """Return the size of a result once the ``chosen`` values are URIs."""
    return size - sum(sizes[key] - _URI_SIZE for key in chosen)


async def _stored(controls: Controls, number: int, key: str, value: Any) -> str:
    name = f"{DIRECTORY}/{number}{f'-{key}' if _PLAIN.fullmatch(key) else ''}.json"
    await controls.files.files.write_json(name, value)
    return str(await controls.files.upload_file(name))
