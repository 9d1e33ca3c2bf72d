"""Turns values into requests, and replies into values (RXON.md, "Transport").

`Codec` writes: it knows who the worker is and how it signs. The ``decode_*`` functions read; they raise `RejectedError`
for a status of 400 or more and `MalformedMessageError` for anything but the expected message.
Each call of a writing method makes a new attempt: freshly signed, and different from all others (RXON.md, "Signing").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import Dialect
from avtomatika_worker.protocol.messages import (
    CanonicalData,
    Event,
    Heartbeat,
    TaskResult,
    WorkerRegistration,
    WorkerStatus,
)
from avtomatika_worker.protocol.signing import Signer

TOKEN_HEADER: Final = "X-Worker-Token"  # noqa: S105 - a header's name
WORKER_ID_HEADER: Final = "X-Worker-ID"
VERSION_HEADER: Final = "X-RXON-Version"

REGISTER_PATH: Final = "/_worker/workers/register"
RESULT_PATH: Final = "/_worker/tasks/result"
EVENT_PATH: Final = "/_worker/events"
TOKEN_PATH: Final = "/_worker/auth/token"  # noqa: S105 - a path
REFRESH_PATH: Final = "/_worker/auth/token/refresh"


class Request(msgspec.Struct, frozen=True):
    """A call to make: ``path`` is relative to the orchestrator's base URL and may have a query."""

    method: str
    path: str
    body: bytes | None = None

    def __repr__(self) -> str:  # the body may hold a refresh token
        return f"Request(method={self.method!r}, path={self.path!r})"


SKILL_CALL_PATH: Final = "/skills/call"
"""Where `OrchestratorClient` asks for another skill. No orchestrator up to 1.0b30 has it."""


def heartbeat_path(worker_id: str) -> str:
    """Return the path for heartbeats."""
    return f"/_worker/workers/{worker_id}"


def poll_path(worker_id: str) -> str:
    """Return the path for polls."""
    return f"/_worker/workers/{worker_id}/tasks/next"


def commands_path(worker_id: str) -> str:
    """Return the path of the commands' WebSocket."""
    return f"/_worker/ws/{worker_id}"


def check_result(result: TaskResult, dialect: Dialect) -> None:
    """Raise `UnsendableValueError` for a result that an orchestrator of this dialect could not digest."""
    canonical_bytes(_result_message(result, dialect), dialect)


def _result_message(result: TaskResult, dialect: Dialect) -> dict[str, Any]:
    message: dict[str, Any] = {
        "job_id": result.job_id,
        "task_id": result.task_id,
        "worker_id": result.worker_id,
        "origin_worker_id": result.origin_worker_id,
        "status": result.status,
        "data": _embedded(result.data, dialect),
    }
    if result.error is not None:
        message["error"] = msgspec.to_builtins(result.error)
    if result.data_metadata is not None:
        message["data_metadata"] = msgspec.to_builtins(result.data_metadata)
    if result.metadata is not None:
        message["metadata"] = result.metadata
    if result.costs is not None and dialect.costs:
        message["costs"] = result.costs
    return message


def _embedded(data: dict[str, Any] | CanonicalData, dialect: Dialect) -> object:
    """Return data in a message's form; the orchestrator's version may have changed since it was written."""
    if isinstance(data, dict):
        return data
    return orjson.Fragment(data.json) if data.version == dialect.version else orjson.loads(data.json)


class Codec:
    """Writes one worker's requests. ``token`` is the configured one: it signs, whatever token is in the header."""

    def __init__(self, worker_id: str, token: str | None, nonce: Callable[[], str]) -> None:
        self._worker_id = worker_id
        self._signer = Signer(token) if token else None
        self._nonce = nonce
        self._headers: tuple[str | None, Dialect | None, Mapping[str, str]] = (None, None, {})
        self._poll: tuple[object, Request] = (None, Request("GET", poll_path(worker_id)))

    def headers(self, token: str | None, dialect: Dialect) -> Mapping[str, str]:
        """Return the headers of every call; ``token`` currently authenticates the worker."""
        last_token, last_dialect, headers = self._headers
        if dialect is not last_dialect or token != last_token:
            headers = {WORKER_ID_HEADER: self._worker_id, VERSION_HEADER: dialect.version}
            if token:
                headers[TOKEN_HEADER] = token
            self._headers = token, dialect, headers
        return headers

    def register(self, registration: WorkerRegistration, dialect: Dialect, now: float) -> Request:
        """Write a registration."""
        message = msgspec.to_builtins(registration)
        if not dialect.skill_names:
            # Up to 1.0b8, the catalog is the availability list (RXON.md, Behaviour 1).
            available = set(registration.available_skills)
            message["supported_skills"] = [s for s in message["supported_skills"] if s["name"] in available]
        resources = message["resources"]
        # Up to 1.0b9, cores and memory are read at the top level, from 1.0b10 in the properties: all accept both.
        resources["properties"] = {
            "cpu_cores": resources["cpu_cores"],
            "ram_gb": resources["ram_gb"],
            **resources["properties"],
        }
        return Request("POST", REGISTER_PATH, self._sealed(message, dialect, now))

    def heartbeat(self, heartbeat: Heartbeat, dialect: Dialect, now: float) -> Request:
        """Write a heartbeat."""
        message = msgspec.to_builtins(heartbeat)
        catalogue = message.pop("catalogue")
        if dialect.skill_names:
            del message["hot_cache"], message["skill_dependencies"]
        else:
            hot, available = set(message.pop("hot_skills")), set(message.pop("available_skills"))
            if catalogue is not None:
                message["hot_skills"] = [skill for skill in catalogue if skill["name"] in hot]
                catalogue = [skill for skill in catalogue if skill["name"] in available]
        if catalogue is not None:
            message["supported_skills"] = catalogue
        if heartbeat.status is WorkerStatus.DRAINING and not dialect.draining_status:
            message["status"] = WorkerStatus.BUSY.value
        return Request("PATCH", heartbeat_path(self._worker_id), self._sealed(message, dialect, now))

    def poll(self, timeout: float, available: tuple[str, ...], hot: tuple[str, ...], dialect: Dialect) -> Request:
        """Write a request for the next task; ``timeout`` (seconds) is only a wish: the orchestrator has its own.

        While the skills stay the same, so does the request, which may then be sent again as it is.
        """
        wish = (timeout, available, hot, dialect.skill_names)
        last, request = self._poll
        if wish != last:
            path = poll_path(self._worker_id)
            if dialect.skill_names:
                # Skill names are identifiers: nothing in them needs escaping.
                path += f"?timeout={timeout:g}&available_skills={','.join(available)}&hot_skills={','.join(hot)}"
            request = Request("GET", path)
            self._poll = wish, request
        return request

    def result(self, result: TaskResult, dialect: Dialect, now: float) -> Request:
        """Write a result. Raises `UnsendableValueError` if the orchestrator could not digest it."""
        message = _result_message(result, dialect)
        return Request("POST", RESULT_PATH, self._sealed(message, dialect, now, chain=result.identity_chain))

    def event(self, event: Event, dialect: Dialect, now: float) -> Request:
        """Write an event. Raises `UnsendableValueError` if the orchestrator could not digest it.

        The event's id is its nonce: a retry refused with 403 has already arrived.
        """
        message = msgspec.to_builtins(event)
        chain = message.pop("identity_chain")
        if not dialect.origin_task_id:
            message["origin_task_id"] = None
        body = self._sealed(message, dialect, now, nonce=False, unsigned=b'"bubbling_chain":[]', chain=chain)
        return Request("POST", EVENT_PATH, body)

    def access_token(self) -> Request:
        """Write a request for an access token."""
        return Request("POST", TOKEN_PATH)

    def refresh_token(self, refresh_token: str) -> Request:
        """Write a request that renews the tokens."""
        return Request("POST", REFRESH_PATH, msgspec.json.encode({"refresh_token": refresh_token}))

    def _sealed(
        self,
        message: dict[str, Any],
        dialect: Dialect,
        now: float,
        *,
        nonce: bool = True,
        unsigned: bytes = b"",
        chain: Sequence[str] | None = None,
    ) -> bytes:
        """Return the body: the canonical bytes, followed by the signature and the ``unsigned`` members."""
        message["timestamp"] = int(now)
        if nonce:
            message["nonce"] = self._nonce()
        canonical = canonical_bytes(message, dialect)
        parts: list[bytes | memoryview] = [memoryview(canonical)[:-1]]  # no copy: it may be long
        if unsigned:
            parts.append(unsigned)
        security: list[str] = []
        if self._signer is not None:
            security.append(f'"signature":"{self._signer.sign(canonical)}","signer_id":"{self._worker_id}"')
        if chain is not None:
            security.append(f'"identity_chain":{msgspec.json.encode(chain).decode()}')
        if security:
            parts.append(f'"security":{{{",".join(security)}}}'.encode())
        return b",".join(parts) + b"}"
