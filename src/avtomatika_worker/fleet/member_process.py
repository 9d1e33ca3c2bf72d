"""A member's process, seen from the fleet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from avtomatika_worker.fleet.membership import PREEMPTED, Command, Membership, Ready

_HELLO_LIMIT: Final = 2**16
"""The largest hello, in bytes."""


class Process:
    """A running member. ``generation`` is the rolling restart it belongs to."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        socket_path: Path,
        generation: int,
    ) -> None:
        self._process = process
        self._reader, self._writer = connection
        self.socket_path: Path = socket_path
        self.generation: int = generation
        self.started: float = time.monotonic()
        self.hello: Ready | None = None
        self.killed: bool = False
        self.preempted: bool = False
        self.gone: asyncio.Event = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it is still running."""
        return self._process.returncode is None

    async def greeted(self) -> Ready | None:
        """Wait for its hello and return it, or None if it ends first."""
        try:
            self.hello = msgspec.json.decode(await self._reader.readline(), type=Ready)
        except (msgspec.DecodeError, OSError, ValueError):
            return None
        return self.hello

    async def hear(self) -> None:
        """Hear what it reports after its hello, to its end."""
        with contextlib.suppress(OSError, ValueError):
            while line := await self._reader.readline():
                self.preempted = self.preempted or line == PREEMPTED

    def order(self, order: Command) -> None:
        """Send it a command; does nothing if it has ended."""
        if self.runs:
            self._writer.write(order.value)

    def kill(self) -> None:
        """End it by force."""
        if self.runs:
            self.killed = True
            self._process.kill()

    async def ended(self) -> int:
        """Wait for its end and return its exit code: below 0 if a signal ended it; then its children are ended too."""
        code = await self._process.wait()
        if code < 0:  # it could not end them itself; its children are in its group unless they have left it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._writer.close()
        self.socket_path.unlink(missing_ok=True)
        self.gone.set()
        return code


async def start(
    command: Sequence[str], environ: Mapping[str, str], suffix: str, base_id: str, socket_path: Path, generation: int
) -> Process:
    """Start a member in its own session, so that the terminal's Ctrl+C reaches only the fleet. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        membership = Membership(suffix, theirs.fileno(), base_id, socket_path)
        process = await asyncio.create_subprocess_exec(
            *command,
            "--member",
            membership.to_argument(),
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    connection = await asyncio.open_connection(sock=ours, limit=_HELLO_LIMIT)
    return Process(process, connection, socket_path, generation)
