"""The heartbeat process's calls: heartbeats, and the renewal of a refused access token.

It imports only the standard library.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Generator, Mapping
from typing import Any, Final, TypedDict
from urllib.parse import SplitResult, unquote, urlsplit

_TIMEOUT: Final = 10.0
"""Seconds to connect, and again for the request and all of its answer."""

_LONGEST_ANSWER: Final = 2**20
_OK: Final = 200
_UNAUTHORIZED: Final = frozenset({401, 403})
"""403 is what releases from 1.0b22 on answer to a token that they do not know, or not any more."""
_PROBLEM: Final = 200
_TOKEN_HEADER: Final = "X-Worker-Token"  # noqa: S105 - a header's name
_WANTED_HEADERS: Final = ("x-rxon-version", "date", "retry-after")
_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
_PORTS: Final = {"http": 80, "https": 443}

Message = dict[str, Any]


class Renewal(TypedDict):
    """A request for another access token: a decoded `protocol.codec.Request`."""

    method: str
    path: str
    body: str | None


class Form(TypedDict):
    """A decoded `link.keepalive.KeepAlive`."""

    path: str
    parts: tuple[str, str, str]
    headers: dict[str, str]
    headers_again: dict[str, str] | None
    renewals: list[Renewal]
    signer_id: str
    key: str | None
    ahead: float
    due: float
    interval: float
    registrations: int


class Proxy(TypedDict):
    """The proxy on the way to an orchestrator."""

    url: str
    headers: dict[str, str]


class Place(TypedDict):
    """An orchestrator's address."""

    url: str
    proxy: Proxy | None


class Tls(TypedDict):
    """Paths of PEM files."""

    ca: str | None
    cert: str | None
    key: str | None


def steady() -> float:
    """Return the same as `World.steady` in the worker."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def sealed(form: Form) -> bytes:
    """Return the body of a heartbeat: with a new nonce, the orchestrator's time, and a signature over both."""
    before, between, after = form["parts"]
    canonical = f"{before}{os.urandom(12).hex()}{between}{int(steady() + form['ahead'])}{after}".encode()
    if form["key"] is None:
        return canonical
    signature = hmac.new(form["key"].encode(), canonical, hashlib.sha256).hexdigest()
    security = f',"security":{{"signature":"{signature}","signer_id":"{form["signer_id"]}"}}}}'
    return canonical[:-1] + security.encode()


class Orchestrator:
    """Sends heartbeats to one orchestrator, each on a new connection with the current TLS files."""

    def __init__(self, place: Place, tls: Tls, user_agent: str, timeout: float = _TIMEOUT) -> None:
        parts = urlsplit(place["url"])
        self._url = parts
        self._secure = parts.scheme == "https"
        self._proxy = place["proxy"]
        self._tls = tls
        self._timeout = timeout
        self._headers = {"User-Agent": user_agent, "Content-Type": "application/json"}
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"

    def beat(self, form: Form) -> Message:
        """Send a heartbeat and return a report. Blocks; never raises because of the network.

        A refused access token is renewed: it is changed in ``form``, and reported.
        """
        report: Message = {"asked": steady(), "registrations": form["registrations"]}
        try:
            answer = self._send(form, form["headers"])
            if answer["status"] in _UNAUTHORIZED and form["headers_again"] is not None:
                report["granted"] = granted = self._renewed(form, form["headers_again"])
                answer = self._send(form, form["headers"] if granted else form["headers_again"])
            report |= answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            report["problem"] = f"{type(error).__name__}: {error}"[:_PROBLEM]
            report["timed_out"] = isinstance(error, TimeoutError)
        report["at"] = time.monotonic()
        return report

    def _renewed(self, form: Form, headers: Mapping[str, str]) -> Message | None:
        """Get another access token; return the answer with it, or None."""
        for each in form["renewals"]:
            body = None if each["body"] is None else base64.b64decode(each["body"])
            answer = self._call(each["method"], each["path"], body, headers)
            tokens = _tokens(answer["body"]) if answer["status"] == _OK else {}
            if (access := tokens.get("access_token")) is None:
                continue
            form["headers"] = {**form["headers"], _TOKEN_HEADER: access}
            if (
                each["body"] is not None and (refresh := tokens.get("refresh_token")) is not None
            ):  # the old one is spent
                each["body"] = base64.b64encode(json.dumps({"refresh_token": refresh}).encode()).decode()
            return answer
        return None

    def _send(self, form: Form, headers: Mapping[str, str]) -> Message:
        return self._call("PATCH", form["path"], sealed(form), headers)

    def _call(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Message:
        connection, before, extra = self._connection()
        target = f"{before}{self._url.path.rstrip('/')}{path}"
        try:
            connection.connect()
            with _in_time(connection.sock, self._timeout):
                connection.request(method, target, body, {**self._headers, **extra, **headers})
                answer = connection.getresponse()
                content = answer.read(_LONGEST_ANSWER + 1)
        finally:
            connection.close()
        if len(content) > _LONGEST_ANSWER:
            raise ValueError(f"the answer is longer than {_LONGEST_ANSWER} bytes")
        found = {name: value for name in _WANTED_HEADERS if (value := answer.getheader(name)) is not None}
        good = {name: value for name, value in found.items() if value.isascii() and value.isprintable()}
        return {"status": answer.status, "headers": good, "body": content.decode("latin-1")}

    def _connection(self) -> tuple[http.client.HTTPConnection, str, Mapping[str, str]]:
        """Return a connection, the prefix of a request's path on it, and headers for the proxy."""
        if self._proxy is None:
            return self._connected(self._url), "", {}
        proxy, credentials = urlsplit(self._proxy["url"]), self._proxy["headers"]
        if not self._secure:
            return self._connected(proxy), f"http://{self._url.netloc.rpartition('@')[2]}", credentials
        tunnel = http.client.HTTPSConnection(*_place(proxy), timeout=self._timeout, context=self._tls_context())
        tunnel.set_tunnel(*_place(self._url), credentials)
        return tunnel, "", {}

    def _connected(self, to: SplitResult) -> http.client.HTTPConnection:
        host, port = _place(to)
        if to.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls_context())
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._tls["ca"]:
            context.load_verify_locations(self._tls["ca"])
        if self._tls["cert"] and self._tls["key"]:
            context.load_cert_chain(self._tls["cert"], self._tls["key"], password=_no_password)
        return context


@contextlib.contextmanager
def _in_time(connected: socket.socket, seconds: float) -> Generator[None]:
    """Cut a connection off after so many seconds, however many bytes come. Raises TimeoutError then.

    The timeout of a socket begins again with each of them.
    """
    late = threading.Event()

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_RDWR)  # what TLS does besides is not for another thread

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set():
            raise TimeoutError("timed out") from error
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError("timed out")


def _no_password() -> str:
    """Answer instead of the person whom OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted")


def _place(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or _PORTS[url.scheme]


def _tokens(body: str) -> dict[str, str]:
    """Return the tokens in an answer that fit in a header; the worker handles the rest."""
    try:
        read: Any = json.loads(body)
        found = {name: read.get(name) for name in ("access_token", "refresh_token")}
    except (ValueError, AttributeError, RecursionError):
        return {}
    texts = {name: value for name, value in found.items() if isinstance(value, str)}
    return {name: value for name, value in texts.items() if value.isascii() and value.isprintable()}
