"""An open file whose methods are awaited."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import IO, Any

from avtomatika_worker.files.disk import Disk


class OpenFile:
    """A file that is open within its ``async with`` block; it is read and written in a thread."""

    __slots__ = ("_disk", "_file", "_open")

    def __init__(self, disk: Disk, open_it: Callable[[], IO[Any]]) -> None:
        self._disk = disk
        self._open = open_it
        self._file: IO[Any] | None = None

    async def __aenter__(self) -> OpenFile:
        self._file = await self._disk.run(self._open)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def read(self, size: int = -1) -> Any:
        """Return the next ``size`` characters or bytes, or all the rest."""
        return await self._disk.run(self._opened.read, size)

    async def readline(self) -> Any:
        """Return the next line with its line break, or an empty text at the end of the file."""
        return await self._disk.run(self._opened.readline)

    async def readlines(self) -> list[Any]:
        """Return all lines that are left, with their line breaks."""
        return await self._disk.run(self._opened.readlines)

    async def write(self, content: str | bytes) -> int:
        """Write a text, or bytes in binary modes; return the number written."""
        return await self._disk.run(self._opened.write, content)

    async def writelines(self, lines: Iterable[str | bytes]) -> None:
        """Write each of ``lines``; line breaks are not added."""
        await self._disk.run(self._opened.writelines, list(lines))

    async def truncate(self, size: int | None = None) -> int:
        """Cut the file to ``size`` bytes, or at its position; return the size."""
        return await self._disk.run(self._opened.truncate, size)

    async def tell(self) -> int:
        """Return the position."""
        return await self._disk.run(self._opened.tell)

    async def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position and return it."""
        return await self._disk.run(self._opened.seek, offset, whence)

    async def flush(self) -> None:
        """Pass the written data to the operating system."""
        await self._disk.run(self._opened.flush)

    async def close(self) -> None:
        """Close the file; closing it twice is harmless."""
        file, self._file = self._file, None
        if file is not None:
            await self._disk.run(file.close)

    def __aiter__(self) -> OpenFile:
        return self

    async def __anext__(self) -> Any:
        if line := await self.readline():
            return line
        raise StopAsyncIteration

    @property
    def _opened(self) -> IO[Any]:
        if self._file is None:
            raise ValueError("the file is not open: use `async with files.open(…) as file`")
        return self._file
