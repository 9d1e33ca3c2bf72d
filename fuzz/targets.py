"""What is fuzzed. A target takes any bytes; whatever it raises is a fault of ours.

What each parser may raise is what its docstring says; the target lets that pass, and checks what it returned.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.config import load_settings, read_env_file
from avtomatika_worker.config.settings import setting_fields
from avtomatika_worker.errors import (
    ConfigError,
    MalformedMessageError,
    RejectedError,
    TaskError,
    TransportError,
    UnsafeNameError,
    UnsendableValueError,
    UntrustedTaskError,
)
from avtomatika_worker.files.location import locate
from avtomatika_worker.files.names import confined
from avtomatika_worker.protocol import replies
from avtomatika_worker.protocol.dialects import DIALECTS, NEWEST, choose
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.protocol.signing import Signer, verified_task, verify_message
from avtomatika_worker.protocol.task_verification import TaskGuard
from avtomatika_worker.skills.validation import Schema
from fuzz.raw import RawServer
from fuzz.server import Server

SECRET: Final = "a-token-that-no-error-may-show"  # noqa: S105 - of no use anywhere
_SIGNER: Final = Signer(SECRET)
_ROOT: Final = Path(tempfile.gettempdir()).resolve() / "fuzz-root"
_VARIABLES: Final = sorted(f"{name}".upper() for name in setting_fields())
_STATUSES: Final = (200, 204, 302, 400, 401, 403, 404, 409, 429, 500, 503)
_SCHEMA: Final = Schema(
    {
        "type": "object",
        "properties": {
            "width": {"type": "integer", "minimum": 1},
            "url": {"type": "string", "format": "uri", "maxLength": 100},
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "tree": {"$ref": "#/$defs/tree"},
        },
        "required": ["width"],
        "$defs": {"tree": {"type": "object", "additionalProperties": {"$ref": "#/$defs/tree"}}},
    }
)


@dataclass(frozen=True)
class Target:
    """One parser, or a chain of them. ``seeds`` are inputs to begin with."""

    name: str
    about: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def task(data: bytes) -> None:
    """Read a task, and check its signature as every dialect would."""
    with contextlib.suppress(MalformedMessageError):
        found = replies.decode_task(_answer(data))
        assert found is None or found.task_id
    with contextlib.suppress(ValueError, RecursionError):
        raw = json.loads(data)
        if isinstance(raw, dict):
            for dialect in DIALECTS:
                with contextlib.suppress(UnsendableValueError):
                    assert verified_task(raw, _SIGNER, dialect) is None
                    assert not verify_message(raw, _SIGNER, dialect)


def answers(data: bytes) -> None:
    """Read the answer to any call, with any status; the first byte picks both."""
    status = _STATUSES[data[0] % len(_STATUSES)] if data else 200
    _read_as_everything(_answer(data[1:], status))


def _read_as_everything(answer: Response) -> None:
    for read in (
        replies.decode_task,
        replies.decode_registration,
        replies.decode_heartbeat,
        replies.decode_result,
        replies.decode_event,
        replies.decode_token,
    ):
        with contextlib.suppress(MalformedMessageError, RejectedError):
            read(answer)


def http(data: bytes) -> None:
    """Answer a call with the bytes, status line, headers and framing included, and read what the transport returns."""
    found = RawServer.shared().call(data)
    if isinstance(found, TransportError):
        assert str(found)
        return
    for value in found.headers.values():
        assert value.isascii()
        assert value.isprintable()
    _read_as_everything(found)
    if found.version is not None:
        assert choose(found.version).dialect.version.isprintable()
    with contextlib.suppress(UntrustedTaskError, RejectedError):
        assert TaskGuard(SECRET).admit(found, NEWEST) is None


def websocket(data: bytes) -> None:
    """Send the bytes to the listener: as frames after a good handshake, or (an even first byte) as the handshake."""
    found = RawServer.shared().messages(data[1:], upgrade=bool(data) and data[0] % 2 == 1)
    if not isinstance(found, TransportError):
        for each in found:
            with contextlib.suppress(MalformedMessageError):
                replies.decode_command(each)


def command(data: bytes) -> None:
    """Read a message of the WebSocket, as bytes and as text."""
    for message in (data, data.decode("utf-8", "replace")):
        with contextlib.suppress(MalformedMessageError):
            replies.decode_command(message)


def headers(data: bytes) -> None:
    """Read ``Retry-After`` and ``Date``, on a line each."""
    first, _, second = data.decode("latin-1").partition("\n")
    found = replies.parse_retry_after(first, second)
    assert found is None or (math.isfinite(found) and found >= 0)
    date = replies.parse_http_date(second)
    assert date is None or math.isfinite(date)


def uris(data: bytes) -> None:
    """Take a URI apart and put a listing's names below it: no path may leave the directory."""
    uri, *names = data.decode("utf-8", "surrogateescape").split("\n")
    for each in (uri, *names):
        with contextlib.suppress(UnsafeNameError):
            path = confined(_ROOT, each)
            assert path == _ROOT or _ROOT in path.parents, path
    with contextlib.suppress(TaskError):
        location = locate(uri, _ROOT)
        for name in names:
            with contextlib.suppress(TaskError):
                found = location.below(name)
                assert ".." not in found.key.split("/")
                assert found.key.startswith(location.key)
                assert "\0" not in found.key


def env_file(data: bytes) -> None:
    """Read a ``.env`` file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(ConfigError):
            read_env_file(file.name)


def settings(data: bytes) -> None:
    """Read the environment: lines of a variable's number and its value. No error shows the token."""
    environ = {"WORKER_TOKEN": SECRET, "ORCHESTRATOR_URL": "http://127.0.0.1:1"}
    for line in data.decode("utf-8", "replace").replace("\0", "").split("\n"):
        if line:
            environ[_VARIABLES[ord(line[0]) % len(_VARIABLES)]] = line[1:]
    try:
        load_settings(environ)
    except ConfigError as error:
        assert SECRET not in str(error) or environ["WORKER_TOKEN"] != SECRET


def params(data: bytes) -> None:
    """Hold params against a schema."""
    with contextlib.suppress(ValueError, RecursionError):
        value: Any = json.loads(data)
        for problem in _SCHEMA.problems(value):
            assert problem.text("params")


def client_api(data: bytes) -> None:
    """Submit a job to the embedded orchestrator: the first line is the path, the rest the body."""
    path, _, body = data.partition(b"\n")
    status = Server.shared().request("/api/jobs" + path.decode("ascii", "ignore"), body)
    assert status < 500, status


def worker_api(data: bytes) -> None:
    """Call the embedded orchestrator as a worker: the first byte picks the call."""
    paths = Server.worker_paths
    status = Server.shared().request(paths[data[0] % len(paths)] if data else paths[0], data[1:])
    assert status < 500, status


def worker(data: bytes) -> None:
    """Hand the bytes to a running worker as a task; it must run the next one."""
    Server.shared().hand_out(data)


def _answer(body: bytes, status: int = 200) -> Response:
    return Response(status, {"retry-after": "3"}, body)


def by_name(name: str) -> Target:
    """Return a target."""
    return next(each for each in TARGETS if each.name == name)


def corpus(target: Target) -> Iterator[bytes]:
    """Return the seeds and what was kept of earlier runs."""
    yield from target.seeds
    directory = Path(__file__).parent / "corpus" / target.name
    for path in sorted(directory.glob("*")):
        yield path.read_bytes()


_TASK: Final = (
    b'{"job_id":"j","task_id":"t","type":"echo","params":{"text":"hi"},"client_config":{},"priority":0.5,'
    b'"deadline":1800000000.5,"tracing_context":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},'
    b'"params_metadata":{"s3://b/k":{"uri":"s3://b/k","size":3,"etag":"x"}},"metadata":{"a":[1,null,true]},'
    b'"policy":{"allowed_skills":["echo"]},"sig":"00","signer_id":"o","security":{"identity_chain":["a"]}}'
)

_TWO_BYTES: Final = b"Content-Length: 2\r\n\r\n{}"

TARGETS: Final = (
    Target("task", "a task, decoded and verified", task, (_TASK, b"", b"null", b'{"job_id":"j","task_id":5}')),
    Target(
        "answers",
        "answers to calls",
        answers,
        (
            b'\x00{"status":"registered","cancel_task_ids":["a"],"next_heartbeat_jitter_ms":12.5}',
            b'\x00{"access_token":"a","expires_in":3600,"refresh_token":"b"}',
            b'\x03{"error":"no such worker"}',
            b"\x08<html>",
        ),
    ),
    Target(
        "http",
        "whole HTTP answers: status line, headers, framing, encodings",
        http,
        (
            b"HTTP/1.1 200 OK\r\nX-RXON-Version: 1.0b17\r\nDate: Mon, 23 Nov 2026 12:00:30 GMT\r\n" + _TWO_BYTES,
            b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 12\r\n\r\n" + b'{"error":"x"}',
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-T: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 22\r\n\r\n" + gzip.compress(b"{}", mtime=0),
            b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\nSet-Cookie: a=b\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nDate: caf\xe9\r\nX-RXON-Version: \xff\r\nContent-Length: 2\r\n\r\n{}",
        ),
    ),
    Target(
        "websocket",
        "the commands' WebSocket: its handshake, or its frames",
        websocket,
        (
            b'\x01\x81\x2b{"command":"cancel_task","task_id":"t-0001"}\x88\x02\x03\xe8',
            b"\x01\x01\x01{\x80\x01}\x89\x00\x8a\x00\x82\x7e\x00\x02{}\x88\x00",
            b"\x01\xc1\x04\x81\x82\x00\x00",
            b"\x00HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            b"\x00HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        ),
    ),
    Target("command", "commands of the WebSocket", command, (b'{"command":"cancel_task","task_id":"t","job_id":"j"}',)),
    Target("headers", "Retry-After and dates", headers, (b"120\n", b"Mon, 23 Nov 2026 12:00:30 GMT\n" * 2)),
    Target(
        "uris", "URIs, listings, names", uris, (b"s3://bucket/a/\nb\n../c\n/d", b"file:///tmp/fuzz-root/x", b"gs://b/k")
    ),
    Target("env-file", "a .env file", env_file, (b"A=1\nexport B=\"x\\n\"\n# c\nC='y' # z\n",)),
    Target("settings", "environment variables", settings, (b'a1\nb[{}]\nc{"a":1}\ndtrue', b"e-1\nfhttp://x\ng0.5")),
    Target(
        "params", "params against a schema", params, (b'{"width":1,"url":"http://x","tags":["a"],"tree":{"a":{}}}',)
    ),
    Target(
        "client-api",
        "the client API of the embedded orchestrator",
        client_api,
        (
            b'\n{"skill":"echo","params":{"a":1},"priority":1,"deadline":5,"metadata":{}}',
            b"?validate=1\n{}",
            b"/x/cancel\n",
        ),
    ),
    Target(
        "worker-api",
        "the worker's API of the embedded orchestrator",
        worker_api,
        (
            b'\x00{"worker_id":"w","worker_type":"t","supported_skills":[{"name":"s"}]}',
            b'\x03{"job_id":"j"}',
            b"\x04{}",
        ),
    ),
    Target(
        "worker", "tasks, at a running worker", worker, (_TASK, b"[]", b'{"job_id":"j","task_id":"t","type":"echo"}')
    ),
)
