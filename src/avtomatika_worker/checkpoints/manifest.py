"""The head of a checkpoint: its state, and its files by name, size and digest. Without a head it is incomplete."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from avtomatika_worker.checkpoints.saved_state import MOST_STATE, Kind, State
from avtomatika_worker.checkpoints.sealing import SEAL, DamagedError

_MARK: Final = b"AVCKPT1\n"
_DIGEST: Final = hashlib.sha256().digest_size

MOST_FILES: Final = 1_000
"""Files of one checkpoint."""

MOST_HEAD: Final = MOST_STATE + 4 * 1024 * 1024
"""Bytes of a head, sealed or not."""


class StoredFile(msgspec.Struct, frozen=True):
    """A file: its name relative to the task's directory, its object, its size in bytes, and its SHA-256."""

    name: str
    part: str
    size: int
    digest: bytes


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the head says. ``created`` is in Unix seconds; worker, skill and task are for people."""

    created: float
    worker_id: str
    skill: str
    task_id: str
    kind: str
    state: bytes
    files: tuple[StoredFile, ...] = ()

    def content(self) -> State:
        """Return the state. Raises `DamagedError` for one of an unknown kind."""
        try:
            return State(Kind(self.kind), self.state)
        except ValueError:
            raise DamagedError(f"its state is of an unknown kind, {self.kind!r:.40}") from None


def encode(manifest: Manifest) -> bytes:
    """Write a head."""
    body = msgspec.msgpack.encode(manifest)
    return _MARK + hashlib.sha256(body).digest() + body


def decode(content: bytes) -> Manifest:
    """Read a head. Raises `DamagedError` for anything but a whole one."""
    if content.startswith(SEAL):
        raise DamagedError("it is encrypted, and CHECKPOINT_KEY is not set")
    if not content.startswith(_MARK):
        raise DamagedError("it is no checkpoint of this version")
    digest, body = content[len(_MARK) : len(_MARK) + _DIGEST], content[len(_MARK) + _DIGEST :]
    if hashlib.sha256(body).digest() != digest:
        raise DamagedError("it is incomplete, or was altered")
    try:
        return msgspec.msgpack.decode(body, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DamagedError(f"it cannot be read: {error}") from None
