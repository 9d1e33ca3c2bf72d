"""What a stream's chunks hold, for whoever hears of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from avtomatika_worker.narrowing import is_list
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.skills.chunks import CHUNK_EVENT, ChunkKind
from avtomatika_worker.skills.registry import SkillRegistry


class ChunkReader:
    """Reads the events of one task of a skill that streams."""

    def __init__(self, skills: SkillRegistry, skill: str) -> None:
        known = skills.get(skill)
        self._stream = known.stream if known is not None else None

    @property
    def streams(self) -> bool:
        """Whether the skill streams at all."""
        return self._stream is not None

    def is_chunk(self, event: Mapping[str, Any]) -> bool:
        """Whether an event holds chunks."""
        return self._stream is not None and event.get("event_type") == CHUNK_EVENT

    def read(self, event: Mapping[str, Any]) -> Iterator[Any]:
        """Yield what an event holds: a text, bytes, or each item that was yielded."""
        data: object = as_object(event.get("payload")).get("data")
        if self._stream is not None and self._stream.kind is ChunkKind.BYTES and isinstance(data, str):
            try:
                yield base64.b64decode(data, validate=True)
            except binascii.Error:
                yield data
        elif is_list(data):
            yield from data
        else:
            yield data
