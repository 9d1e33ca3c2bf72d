"""A real S3 server in a process of its own, reached over loopback."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

ACCESS_KEY = "AKIDEXAMPLEKEY"
SECRET_KEY = "wJalrXUtnFEMIexampleSECRET"
START_TIMEOUT = 30.0
SIGNED = {"Authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20260101/us-east-1/s3/aws4_request"}


@dataclass(frozen=True)
class S3Server:
    """A running server. Its objects are read and written here with plain HTTP: it checks no signatures."""

    url: str

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket."""
        self._call("PUT", f"/{bucket}")

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object under any key, also one that no client would send."""
        self._call("PUT", f"/{bucket}/{quote(key, safe='')}", content)

    def get(self, uri: str) -> bytes:
        """Return an object."""
        return self._call("GET", "/" + quote(uri.removeprefix("s3://")))

    def put_many(self, bucket: str, keys: list[str], content: bytes) -> None:
        """Store many objects over one connection."""
        connection = self._connection()
        for key in keys:
            connection.request("PUT", f"/{bucket}/{quote(key)}", content, SIGNED)
            assert connection.getresponse().read() == b""
        connection.close()

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = self._connection()
        try:
            connection.request(method, path, body, SIGNED)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.status < 300, f"{method} {path}: {answer.status} {content[:500]!r}"
        return content

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)


@contextmanager
def serving() -> Iterator[S3Server]:
    """Provide a server that starts empty."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port)
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until:
        assert process.poll() is None, "moto's server has ended: is moto[server] installed?"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("moto's server does not listen")
