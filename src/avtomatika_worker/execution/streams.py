"""Runs a generator skill: it yields chunks, and its result is their concatenation unless it gives one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import orjson

from avtomatika_worker.errors import ContractViolationError, PermanentError, UnsendableValueError
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.files.workspace import Workspace
from avtomatika_worker.narrowing import is_iterator
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.skills.chunks import ChunkKind, StreamContract, is_final

FILE: Final = "stream.bin"
"""The task's file that collects a stream of bytes, unless a file of that name already exists."""

_SPOOL: Final = 2**20
"""Bytes to collect in memory before writing them to the file."""

_PIECE: Final = 2**15
"""Maximum characters or bytes per chunk; a character takes up to six bytes of JSON."""

_LONGEST_ITEM: Final = 960 * 2**10
"""Maximum size of an item in bytes of JSON: orchestrators accept messages of 1 MiB."""

_TURN: Final = 0.005
"""Seconds for which a generator that never waits may keep the event loop to itself."""

_CHUNKS_A_TURN: Final = 16


class StreamRun:
    """One run of a generator. Used where the generator runs: on an event loop or in a thread."""

    def __init__(self, contract: StreamContract, controls: Controls) -> None:
        self._contract = contract
        self._controls = controls
        self._kind = contract.kind
        self._parts: list[Any] = []
        self._spooled = 0
        self._file = ""
        self._written = 0
        self._count = 0
        self._turn_began = 0.0

    async def drive(self, values: AsyncIterator[Any]) -> Any:
        """Drive an async generator and return its result. It is closed on return, however it ended."""
        try:
            async for value in values:
                if is_final(value):
                    return value.value
                if not self._take(value):
                    await self._controls.chunk_room()
                await self._breathe()
            await self._spool(0)
            return self._result()
        finally:
            if callable(close := getattr(values, "aclose", None)) and inspect.isawaitable(closing := close()):
                await closing

    def called_in_thread(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call ``func`` in a thread, and drive the generator that it returns; return anything else as it is."""
        value: object = func(*args, **kwargs)
        return self.drive_in_thread(value) if is_iterator(value) else value

    def drive_in_thread(self, values: Iterator[Any]) -> Any:
        """Drive a generator, in a thread, and return its result. It is closed on return.

        Raises `TaskCancelledError` at the next value once the task should stop.
        """
        returned: Any = None
        try:
            while True:
                try:
                    value = next(values)
                except StopIteration as end:
                    returned = end.value
                    break
                if is_final(value):
                    return value.value
                if not self._take(value):
                    self._controls.wait_for_chunk_room()
                self._controls.ctx.raise_if_cancelled()
                self._spool_in_thread(_SPOOL)
            if returned is not None:
                return returned.value if is_final(returned) else returned
            self._spool_in_thread(0)
            return self._result()
        finally:
            if callable(close := getattr(values, "close", None)):
                close()

    # ---------------------------------------------------------------------------------------------- one value

    def _take(self, value: Any) -> bool:
        """Send a value and keep it; return whether there is room for more. Raises `ContractViolationError`."""
        kind = ChunkKind.of(value)
        if self._kind is None:
            self._kind = kind
        if self._kind is ChunkKind.ITEMS:
            plain = self._contract.plain(value)
            room = self._send(plain, self._size_of(plain))
        elif kind is not self._kind:
            wanted = self._kind.value
            raise ContractViolationError(
                f"chunk {self._count} is of type {type(value).__name__}, but the skill yields {wanted}",
                {"chunk": self._count, "type": type(value).__name__},
            )
        else:
            # The string itself, not the class's idea of it: str() of an enum member is its name.
            plain = bytes(memoryview(value)) if kind is ChunkKind.BYTES else str.__str__(value)
            room = True
            for piece in _pieces(plain):
                room = self._send(piece, len(piece) if kind is ChunkKind.BYTES else self._size_of(piece))
        self._count += 1
        return room

    def _send(self, plain: Any, size: int) -> bool:
        self._parts.append(plain)
        self._spooled += size
        return self._controls.send_chunk(self._kind or ChunkKind.ITEMS, plain, size)

    def _size_of(self, plain: Any) -> int:
        """Return the size of a string or item in bytes of JSON. Raises `ContractViolationError` if it has no JSON."""
        try:
            if isinstance(plain, str):
                return len(orjson.dumps(plain))
            size = len(canonical_bytes({"payload": {"data": [plain]}}, self._controls.dialect))
        except orjson.JSONEncodeError:
            problem = "data: the text is not valid Unicode"
        except UnsendableValueError as error:
            problem = f"{error.path.removeprefix('$.payload.')}: {error.problem}"
        else:
            if size <= _LONGEST_ITEM:
                return size
            problem = f"it is {size} bytes long, but at most {_LONGEST_ITEM} can be sent"
        raise ContractViolationError(f"chunk {self._count} cannot be sent: {problem}", {"chunk": self._count})

    async def _breathe(self) -> None:
        """Give the event loop a turn: a generator may never wait for anything itself."""
        now = asyncio.get_running_loop().time()
        if self._count % _CHUNKS_A_TURN and now - self._turn_began < _TURN:
            return
        if self._controls.cancelling.reason is not None:  # the generator may have caught its cancellation and continued
            raise asyncio.CancelledError
        await self._spool(_SPOOL)
        await asyncio.sleep(0)
        self._turn_began = now

    # ---------------------------------------------------------------------------------------------- the result

    async def _spool(self, least: int) -> None:
        if (data := self._to_spool(least)) is not None:
            await self._controls.files.disk.run(self._append, data)

    def _spool_in_thread(self, least: int) -> None:
        if (data := self._to_spool(least)) is not None:
            self._append(data)

    def _append(self, data: bytes) -> None:
        """Append collected bytes to a dedicated file. Raises `PermanentError` if the skill also wrote to it."""
        workspace = self._controls.files.workspace
        if not self._file:
            self._file = _new_file(workspace)
        with workspace.open(self._file, "ab") as file:
            if file.tell() != self._written:
                raise PermanentError(f"the skill changed {self._file}, the file that collects what it yields")
            file.write(data)
            self._written += len(data)

    def _to_spool(self, least: int) -> bytes | None:
        if self._kind is not ChunkKind.BYTES or self._spooled < least:
            return None
        data, self._parts, self._spooled = b"".join(self._parts), [], 0
        return data

    def _result(self) -> Any:
        match self._kind:
            case ChunkKind.TEXT:
                return "".join(self._parts)
            case ChunkKind.BYTES:
                return self._controls.files.files.path_to_sync(self._file)
            case ChunkKind.ITEMS:
                return self._parts
            case None:
                return None


def _new_file(workspace: Workspace) -> str:
    """Create a file under an unused name, and return the name."""
    name = FILE
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError), workspace.open(name, "xb"):
            break
        name = f"stream-{number}.bin"
    return name


def _pieces(whole: str | bytes) -> Iterator[str | bytes]:
    """Split a long value into pieces that fit into an event, however much of them has to be escaped."""
    if len(whole) <= _PIECE:
        yield whole
        return
    for at in range(0, len(whole), _PIECE):
        yield whole[at : at + _PIECE]
