"""Where tasks may read and write in object stores: the rule, without any store.

Without a list, tasks may read the location of results, except its root and the results of other jobs. Those are at
``<job_id>/<task_id>/…``, and a job's id may be any name: so anything three or more segments deep counts as a result of
the job named by its first segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

import msgspec

from avtomatika_worker.errors import SourceRefusedError
from avtomatika_worker.files.location import Location

_RESULT_DEPTH: Final = 3
"""The fewest segments of a result's key: job, task and name."""

OWN: Final = "avtomatika-checkpoints"
"""Where workers keep what is theirs (checkpoints), below the location of results: no task may read or write there."""

_ORCHESTRATORS: Final = "jobs"
"""Where an orchestrator keeps a job's objects: ``jobs/<job_id>/`` (RXON.md, Behaviour 16)."""


class Sources(msgspec.Struct, frozen=True):
    """``listed``: what may be read, None for the default. ``results``: where results go, or None."""

    listed: Sequence[Location] | None
    results: Location | None

    def check(self, location: Location, job_id: str) -> None:
        """Raise `SourceRefusedError` for a location that a task of this job may neither read nor write."""
        if any(_is_ambiguous(part) for part in _parts(location)):
            raise SourceRefusedError(location.uri, "a segment of its key stands for '.', '..' or a slash when decoded")
        if any(_is_checkpoints(part) for part in _parts(location)):  # another worker's too, whose results go elsewhere
            raise self._refused(location, "checkpoints are kept there")
        if self._is_own(location, job_id):
            return
        if self.listed is not None:
            if any(_below(location, each) is not None for each in self.listed):
                return
        elif self.results is not None and (below := _below(location, self.results)) is not None:
            if not below:
                raise self._refused(location, "the root of the results location cannot be read as a whole")
            # For a prefix, every object found under it is checked the same way.
            if len(below) + location.is_prefix < _RESULT_DEPTH:
                return
            raise self._refused(location, "objects this deep in the results location belong to another job")
        raise self._refused(location, "it is not among the sources that this worker's tasks may read")

    def _is_own(self, location: Location, job_id: str) -> bool:
        below = _below(location, self.results) if self.results is not None else None
        if below is None:
            return False
        # A job called "jobs" would otherwise own the objects of all others.
        return below[:2] == (_ORCHESTRATORS, job_id) or (below[:1] == (job_id,) and job_id != _ORCHESTRATORS)

    def _refused(self, location: Location, problem: str) -> SourceRefusedError:
        if self.listed is not None:
            allowed = ", ".join(each.uri for each in self.listed) or "nothing"
        elif self.results is not None:
            allowed = f"{self.results.uri}<name> and {self.results.uri}<directory>/<name>"
        else:
            allowed = "nothing"
        own = ", and results of its own job" if self.results is not None else ""
        return SourceRefusedError(
            location.uri, f"{problem}; a task may read {allowed}{own} (WORKER_FILE_SOURCES lists others)"
        )


def _parts(location: Location) -> tuple[str, ...]:
    return tuple(location.key.split("/")) if location.key else ()


def _below(location: Location, source: Location) -> tuple[str, ...] | None:
    """Return the segments of a key below a source, () for the source itself, None for anything elsewhere."""
    if (location.scheme, location.bucket) != (source.scheme, source.bucket):
        return None
    parts, start = _parts(location), _parts(source)
    return parts[len(start) :] if parts[: len(start)] == start else None


def _is_checkpoints(part: str) -> bool:
    """Whether a segment names the directory of checkpoints, on file systems without case or final dots too."""
    return part.casefold().rstrip(". ") == OWN


def _is_ambiguous(part: str) -> bool:
    """Whether a segment leads elsewhere if decoded, however often."""
    while (decoded := unquote(part)) != part:
        part = decoded
        if part in {".", ".."} or "/" in part or "\\" in part or "\0" in part:
            return True
    return "\\" in part
