"""A server in front of the S3 server: it keeps what was asked, answers some paths itself and can sign the rest."""

from __future__ import annotations

import http.client
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from files.s3 import SIGNED

_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


def _plain(target: str) -> str:
    """Return a target without needless escapes: moto does not find a bucket whose name has some."""
    return re.sub("%(2D|2E|5F|7E)", lambda found: chr(int(found[1], 16)), target)


@dataclass
class Front:
    """A running server. ``requests`` are method and target, each with the body of those it answers itself."""

    url: str
    requests: list[str] = field(default_factory=list[str])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])


@contextmanager
def front(
    behind: str,
    answers: Mapping[str, str] | None = None,
    *,
    signed: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Front]:
    """Provide a server that hands on to ``behind`` what is not in ``answers``, which are bodies by path."""
    answers = answers or {}
    back = urlsplit(behind).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            path = self.path.partition("?")[0]
            body = self._body()
            kept.headers.append({name.lower(): value for name, value in self.headers.items()})
            if path in answers:
                kept.requests.append(f"{self.command} {self.path} {body.decode()}")
                self._answer(200, {}, answers[path].encode())
                return
            kept.requests.append(f"{self.command} {self.path}")
            connection = http.client.HTTPConnection(back, timeout=30)
            sent = {name.title(): value for name, value in self.headers.items() if name.lower() not in _HOP}
            connection.request(self.command, _plain(self.path), body, {**sent, **(SIGNED if signed else {})})
            answer = connection.getresponse()
            content = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            if self.command == "HEAD":
                headers["Content-Length"] = answer.getheader("Content-Length", "0")
            self._answer(answer.status, headers, content)
            connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - the names http.server wants

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    kept = Front(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
