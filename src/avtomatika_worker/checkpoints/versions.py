"""The versions of one checkpoint: written one after the other, read from the newest that is whole.

    <key>/<number>-<random>/0, 1, …    files
    <key>/<number>-<random>/head       state and list of files; written last, removed first

So a version without a head is one that was never completed. Two are kept: if the newest turns out to be damaged, the
one before it is used. Numbers count up, whatever the clocks of the workers say.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import AsyncGenerator, Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec

from avtomatika_worker.checkpoints.blobs import Blob, BlobGoneError, Blobs
from avtomatika_worker.checkpoints.manifest import MOST_FILES, MOST_HEAD, Manifest, StoredFile, decode, encode
from avtomatika_worker.checkpoints.saved_state import State
from avtomatika_worker.checkpoints.sealing import DamagedError, Sealer
from avtomatika_worker.errors import TaskError
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.workspace import Workspace
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.checkpoints")

_HEAD: Final = "head"
_KEPT: Final = 2
_VERSION: Final = re.compile(r"([0-9]{12})-[0-9a-f]{8}")
_PART: Final = re.compile(r"[0-9]{1,6}")


class TooLargeError(Exception):
    """More than checkpoints may have."""


class Place(msgspec.Struct, frozen=True):
    """Where and how all checkpoints of a worker are kept. ``most_bytes`` is for each, ``max_age`` in seconds."""

    blobs: Blobs
    disk: Disk
    sealer: Sealer | None
    most_bytes: int
    max_age: float
    world: World = REAL

    def name(self) -> str:
        """Return a random name."""
        return f"{self.world.random.getrandbits(32):08x}"


class Facts(msgspec.Struct, frozen=True):
    """Whose checkpoint it is, for people."""

    worker_id: str
    skill: str
    task_id: str


class Versions:
    """The versions of the checkpoint ``key``, of which one task at a time writes and reads. Used on the main loop."""

    def __init__(self, key: str, place: Place, facts: Facts, scratch: Workspace) -> None:
        """``scratch``: a directory for what is not complete yet, on the same disk as the task's files."""
        self._key = key
        self._place = place
        self._facts = facts
        self._scratch = scratch
        self._names: dict[str, Blob] | None = None
        self._begun: set[str] = set()

    async def write(self, state: State, files: Mapping[str, Path]) -> None:
        """Store a new version: on return it is complete, and older ones are removed.

        Raises OSError, a `TaskError`, or `TooLargeError`; then the last complete version is the newest still.
        """
        sizes = await self._place.disk.run(lambda: {name: path.stat().st_size for name, path in files.items()})
        self._check_size(len(state.content) + sum(sizes.values()), len(files))
        names = await self._known()
        last = max((_number(name) for name in names), default=0)
        version = f"{last + 1:012d}-{self._place.name()}"
        parts = [await self._put_file(version, index, name, path) for index, (name, path) in enumerate(files.items())]
        manifest = Manifest(
            created=self._place.world.wall(),
            worker_id=self._facts.worker_id,
            skill=self._facts.skill,
            task_id=self._facts.task_id,
            kind=state.kind.value,
            state=state.content,
            files=tuple(parts),
        )
        async with self._temporary() as temporary:
            await self._place.disk.run(self._write_head, temporary, encode(manifest), version)
            await self._put(version, _HEAD, temporary)
        try:
            await self._prune(version)
        except (OSError, TaskError) as error:  # the next write tries again
            _log.debug("old versions of a checkpoint stay: %s", error, extra={"action": "checkpoint_not_pruned"})

    async def read(self) -> AsyncGenerator[Manifest]:
        """Yield the complete versions, the newest first; `fetched` returns where the files of each are.

        What is damaged, or cannot be read, is logged and left out. Raises OSError or a `TaskError` if the place cannot
        be used.
        """
        self._names = None  # another worker may have written since
        names = await self._known()
        oldest = self._place.world.wall() - self._place.max_age
        heads = sorted((each for each in names if each.endswith(f"/{_HEAD}")), reverse=True)
        for name in heads:
            version = name.split("/")[1]
            if _VERSION.fullmatch(version) is None or names[name].modified < oldest:
                continue
            try:
                yield await self._fetched(version, names[name])
            except (DamagedError, BlobGoneError, OSError) as error:
                problem = "a part of it is missing" if isinstance(error, BlobGoneError) else str(error)
                _log.warning(
                    "checkpoint %s of skill %s cannot be used: %s; an older one is looked for",
                    version,
                    self._facts.skill,
                    problem,
                    extra={"action": "checkpoint_damaged", "skill": self._facts.skill},
                )

    def fetched(self, file: StoredFile) -> Path:
        """Return where a file of the version that was read last is. Blocks."""
        return self._scratch.path_to(f"files/{file.part}")

    # ------------------------------------------------------------------------------------------ inside

    async def _known(self) -> dict[str, Blob]:
        if self._names is None:
            self._names = await self._place.blobs.list(self._key)
        return self._names

    def _check_size(self, size: int, count: int) -> None:
        if size > self._place.most_bytes:
            raise TooLargeError(f"it has {size} bytes, more than {self._place.most_bytes} (CHECKPOINT_MAX_BYTES)")
        if count > MOST_FILES:
            raise TooLargeError(f"it has {count} files, more than {MOST_FILES}")

    async def _put_file(self, version: str, index: int, name: str, path: Path) -> StoredFile:
        part, sealer = str(index), self._place.sealer
        size, digest = await self._place.disk.run(_digest, path)
        if sealer is None:
            await self._put(version, part, path)
        else:
            async with self._temporary() as temporary:
                await self._place.disk.run(_seal, sealer, path, temporary, self._name(version, part))
                await self._put(version, part, temporary)
        return StoredFile(name, part, size, digest)

    def _write_head(self, path: Path, content: bytes, version: str) -> None:
        path.write_bytes(content)
        if self._place.sealer is not None:
            plain = path.with_name(f"{path.name}.plain")
            path.rename(plain)
            try:
                _seal(self._place.sealer, plain, path, self._name(version, _HEAD))
            finally:
                plain.unlink()

    async def _put(self, version: str, part: str, path: Path) -> None:
        name = self._name(version, part)
        size = (await self._place.disk.run(path.stat)).st_size
        self._begun.add(name)  # should it fail, what is there of it is removed with what is old
        await self._place.blobs.put(name, path)
        (await self._known())[name] = Blob(size, self._place.world.wall())

    async def _prune(self, newest: str) -> None:
        """Remove what is older than the last complete versions, and what was never completed."""
        names = await self._known()
        complete = sorted((name.split("/")[1] for name in names if name.endswith(f"/{_HEAD}")), reverse=True)
        kept = {newest, *complete[:_KEPT]}
        old = [name for name in (*names, *(self._begun - names.keys())) if name.split("/")[1] not in kept]
        await remove_all(self._place.blobs, old)
        self._begun.clear()
        for name in old:
            names.pop(name, None)

    async def _fetched(self, version: str, head: Blob) -> Manifest:
        """Return a version's manifest, its files fetched. Raises `DamagedError` or `BlobGoneError`."""
        if head.size > MOST_HEAD:
            raise DamagedError(f"its head has {head.size} bytes")
        async with self._temporary() as temporary:
            await self._place.blobs.get(self._name(version, _HEAD), temporary)
            content = await self._place.disk.run(self._unsealed, temporary, version)
        manifest = decode(content)
        manifest.content()
        self._check_files(manifest)
        for each in manifest.files:
            await self._fetch_file(version, each)
        return manifest

    def _unsealed(self, path: Path, version: str) -> bytes:
        if self._place.sealer is not None:
            _unseal(self._place.sealer, path, self._name(version, _HEAD))
        return path.read_bytes()

    def _check_files(self, manifest: Manifest) -> None:
        try:
            self._check_size(len(manifest.state) + sum(each.size for each in manifest.files), len(manifest.files))
        except TooLargeError as error:
            raise DamagedError(str(error)) from None
        if not all(_PART.fullmatch(each.part) and each.size >= 0 for each in manifest.files):
            raise DamagedError("its list of files is none of ours")

    async def _fetch_file(self, version: str, file: StoredFile) -> None:
        path = await self._place.disk.run(self.fetched, file)
        await self._place.disk.run(path.unlink, missing_ok=True)  # of a newer version, which is damaged
        name = self._name(version, file.part)
        stored = (await self._known()).get(name)
        if stored is None:
            raise BlobGoneError(name)
        if self._place.sealer is None and stored.size != file.size:
            raise DamagedError(f"its file {file.name!r:.200} has {stored.size} bytes instead of {file.size}")
        await self._place.blobs.get(name, path)
        if self._place.sealer is not None:
            await self._place.disk.run(_unseal, self._place.sealer, path, name)
        if await self._place.disk.run(_digest, path) != (file.size, file.digest):
            raise DamagedError(f"its file {file.name!r:.200} was altered, or changed while it was saved")

    def _name(self, version: str, part: str) -> str:
        return f"{self._key}/{version}/{part}"

    @contextlib.asynccontextmanager
    async def _temporary(self) -> AsyncGenerator[Path]:
        path = await self._place.disk.run(self._scratch.path_to, f"{self._place.name()}.part")
        try:
            yield path
        finally:
            await self._place.disk.run(path.unlink, missing_ok=True)


async def remove_all(blobs: Blobs, names: Collection[str]) -> None:
    """Remove blobs, heads first: what is left if this is interrupted is no checkpoint any more."""
    heads = [name for name in names if name.endswith(f"/{_HEAD}")]
    for some in (heads, [name for name in names if not name.endswith(f"/{_HEAD}")]):
        if some:
            await blobs.remove(some)


def _number(name: str) -> int:
    """Return the number of the version that a blob belongs to, 0 for what is none of ours."""
    found = _VERSION.fullmatch(name.split("/")[1]) if name.count("/") > 1 else None
    return int(found[1]) if found else 0


def _digest(path: Path) -> tuple[int, bytes]:
    """Return a file's size and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        return file.tell(), digest


def _seal(sealer: Sealer, source: Path, target: Path, name: str) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        sealer.seal(reading, writing, name)


def _unseal(sealer: Sealer, path: Path, name: str) -> None:
    """Decrypt a file in its place. Raises `DamagedError`."""
    sealed = path.with_name(f"{path.name}.sealed")
    path.rename(sealed)
    try:
        with sealed.open("rb") as reading, path.open("wb") as writing:
            sealer.unseal(reading, writing, name)
    finally:
        sealed.unlink()
