"""The skill process's end of the socket pair, with blocking I/O."""

from __future__ import annotations

import os
import socket
import threading

from avtomatika_worker._forks import close_in_forked_children
from avtomatika_worker.execution.processes.wire import HEAD, Message, decode, encode, read_head


class ChildConnection:
    """Reads messages in one thread and writes them in any. Not usable in forked children."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = sock.makefile("rb")
        self._writing = threading.Lock()
        self._pid = os.getpid()
        close_in_forked_children(sock.fileno())

    def receive(self) -> Message | None:
        """Wait for the next message; return None if there will be no more."""
        try:
            head = self._reader.read(HEAD.size)
            if len(head) < HEAD.size:
                return None
            _, size = read_head(head)
            body = self._reader.read(size)
        except (OSError, ValueError):
            return None
        return decode(body) if len(body) == size else None

    def send(self, *message: object) -> None:
        """Write a message. Raises RuntimeError in a forked child."""
        self.write(encode(*message))

    def write(self, encoded: bytes) -> None:
        """Write an encoded message. If the worker is gone, exit: there is nothing left to do."""
        if os.getpid() != self._pid:
            raise RuntimeError("a process forked by a skill cannot use the task's context")
        try:
            with self._writing:
                self._socket.sendall(encoded)
        except OSError:
            os._exit(1)
