"""A process's end of the socket pair. It blocks."""

from __future__ import annotations

import os
import socket
import threading

from avtomatika_worker.execution.processes.wire import LENGTH, Message, decode, encode


class Connection:
    """Reads messages in one thread, writes them in any."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = sock.makefile("rb")
        self._writing = threading.Lock()

    def receive(self) -> Message | None:
        """Wait for the next message; None when there will be none."""
        try:
            head = self._reader.read(LENGTH.size)
            if len(head) < LENGTH.size:
                return None
            (size,) = LENGTH.unpack(head)
            body = self._reader.read(size)
        except OSError:
            return None
        return decode(body) if len(body) == size else None

    def send(self, *message: object) -> None:
        """Write a message."""
        self.write(encode(*message))

    def write(self, encoded: bytes) -> None:
        """Write an encoded message. Nothing is left to do when nobody reads it."""
        try:
            with self._writing:
                self._socket.sendall(encoded)
        except OSError:
            os._exit(1)
