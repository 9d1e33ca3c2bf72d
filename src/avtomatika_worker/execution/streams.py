"""Runs a generator: what it yields goes out as chunks, and its result is their concatenation, or what it says last."""

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
"""The task's file that a stream of bytes is collected in, unless there is one of that name already."""

_SPOOL: Final = 2**20
"""Bytes that are collected in memory before they go to the file."""

_PIECE: Final = 2**15
"""Characters or bytes that go on as one; a character takes up to six bytes of JSON."""

_LONGEST_ITEM: Final = 960 * 2**10
"""Bytes of JSON that an item may have: orchestrators accept messages of 1 MiB."""

_TURN: Final = 0.005
"""Seconds for which a generator that never waits may keep the event loop to itself."""

_CHUNKS_A_TURN: Final = 16


class StreamRun:
    """One run of a generator. Used where the generator runs: on an event loop, or in a thread."""

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
        """Return the result of an async generator, which is closed on return, whatever ended it."""
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
        """Return the result of a generator, which is closed on return. In a thread, without an event loop.

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
                f"chunk {self._count} is of type {type(value).__name__}, and the skill yields {wanted}",
                {"chunk": self._count, "type": type(value).__name__},
            )
        else:
            # What the value is, not what its class makes of it: str() of an enumeration's member is its name.
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
        """Return the bytes of JSON that a text or an item has. Raises `ContractViolationError` when it has no JSON."""
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
            problem = f"it is {size} bytes long, and at most {_LONGEST_ITEM} can be sent"
        raise ContractViolationError(f"chunk {self._count} cannot be sent: {problem}", {"chunk": self._count})

    async def _breathe(self) -> None:
        """Let the event loop go on: a generator need not wait for anything by itself."""
        now = asyncio.get_running_loop().time()
        if self._count % _CHUNKS_A_TURN and now - self._turn_began < _TURN:
            return
        if self._controls.cancelling.reason is not None:  # a generator may have caught its cancellation and gone on
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
        """Write what was collected to a file of its own. Raises `PermanentError` if the skill wrote there, too."""
        workspace = self._controls.files.workspace
        if not self._file:
            self._file = _new_file(workspace)
        with workspace.open(self._file, "ab") as file:
            if file.tell() != self._written:
                raise PermanentError(f"the skill changed {self._file}, the file in which what it yields is collected")
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
    """Return the name of a file that was not there before."""
    name = FILE
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError), workspace.open(name, "xb"):
            break
        name = f"stream-{number}.bin"
    return name


def _pieces(whole: str | bytes) -> Iterator[str | bytes]:
    """Cut what is long into pieces that go into an event, whatever has to be escaped in them."""
    if len(whole) <= _PIECE:
        yield whole
        return
    for at in range(0, len(whole), _PIECE):
        yield whole[at : at + _PIECE]
