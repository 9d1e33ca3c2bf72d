"""Limits one task's transfers: from where, how many bytes and how many objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from avtomatika_worker.errors import InvalidInputError

DEFAULT_BYTES: Final = 10 * 1024**3
DEFAULT_OBJECTS: Final = 10_000


@dataclass(slots=True)
class Permit:
    """A task's allowance. ``most_bytes`` and ``most_objects`` limit all its downloads together."""

    job_id: str
    most_bytes: int = DEFAULT_BYTES
    most_objects: int = DEFAULT_OBJECTS
    _bytes: int = 0
    _objects: int = 0

    def check_count(self, uri: str, count: int) -> None:
        """Raise `InvalidInputError` if ``count`` more objects are too many for the task."""
        if self._objects + count > self.most_objects:
            raise InvalidInputError(
                f"{uri:.300}: with it the task would download more than {self.most_objects} objects"
                " (WORKER_TASK_FILES_MAX_OBJECTS)",
                {"uri": uri[:300], "limit": self.most_objects, "setting": "WORKER_TASK_FILES_MAX_OBJECTS"},
            )

    def take(self, uri: str, size: int, count: int = 1) -> None:
        """Count an upcoming download. Raises `InvalidInputError` if it is too much for the task."""
        self.check_count(uri, count)
        if self._bytes + size > self.most_bytes:
            raise InvalidInputError(
                f"{uri:.300}: with its {size} bytes the task would download more than {self.most_bytes} bytes"
                " (WORKER_TASK_FILES_MAX_BYTES)",
                {"uri": uri[:300], "limit": self.most_bytes, "setting": "WORKER_TASK_FILES_MAX_BYTES"},
            )
        self._bytes += size
        self._objects += count
