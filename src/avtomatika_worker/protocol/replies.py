"""Turns replies into values: the reading half of the codec (RXON.md, "Transport").

Every function takes a `Response` and returns a message, or raises `RejectedError` (a status other than 2xx) or
`MalformedMessageError`. None of them raises anything else, whatever the bytes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from avtomatika_worker.errors import MalformedMessageError, RejectedError
from avtomatika_worker.protocol.codec import VERSION_HEADER
from avtomatika_worker.protocol.coerce import as_number, as_object, as_text, as_texts
from avtomatika_worker.protocol.messages import (
    Command,
    EventReply,
    HeartbeatReply,
    RegistrationReply,
    ResultReply,
    Task,
    TokenReply,
)

_T = TypeVar("_T")
_S = TypeVar("_S", bound=msgspec.Struct)
_VERSION_HEADER: Final = VERSION_HEADER.lower()
_DETAIL_LIMIT: Final = 200
"""Characters of a text for people that are kept: logs repeat it."""

_VERSION_LIMIT: Final = 64
_ID_LIMIT: Final = 256
"""Characters of a task's id, its job's id and its type: every line of its log and every event repeats them."""

_DIGITS: Final = 12  # of seconds: a longer wait is unrealistic
# One standard date parser imports sockets, the other depends on the locale.
_HTTP_DATE: Final = re.compile(
    r", (?P<day>[0-9]{2}) (?P<month>[A-Z][a-z]{2}) (?P<year>[0-9]{4}) (?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2}) GMT$"
)
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DECODE_ERRORS: Final = (msgspec.DecodeError, ValueError, RecursionError, OverflowError)
"""Exceptions that decoding may raise."""


class Response(msgspec.Struct, frozen=True):
    """A raw answer. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:  # the body may hold tokens
        return f"Response(status={self.status!r}, {len(self.body)} bytes)"

    @property
    def version(self) -> str | None:
        """The protocol version announced by the orchestrator, if any; a longer text is none."""
        version = self.headers.get(_VERSION_HEADER)
        return version if version is None or len(version) <= _VERSION_LIMIT else None

    @property
    def from_orchestrator(self) -> bool:
        """Whether it announces the protocol version, as every answer of an orchestrator to a message does.

        Those of its HTTP server (404 and 405 for a route that does not exist, 417), of proxies and portals do not:
        tried with 1.0b21 and 1.0b30.
        """
        return self.version is not None


_task_decoder: Final = msgspec.json.Decoder(Task)
_registration_decoder: Final = msgspec.json.Decoder(RegistrationReply)
_result_decoder: Final = msgspec.json.Decoder(ResultReply)
_event_decoder: Final = msgspec.json.Decoder(EventReply)
_token_decoder: Final = msgspec.json.Decoder(TokenReply)
_command_decoder: Final = msgspec.json.Decoder(Command)


def decode_task(response: Response) -> Task | None:
    """Read the answer to a poll; return None if there was no task.

    A malformed task that names its job and task raises `MalformedMessageError` with both, so that it can be answered
    with a failure.
    """
    raise_for_status(response)
    if response.status == 204:
        return None
    try:
        task = _task_decoder.decode(response.body)
    except DECODE_ERRORS as error:
        job_id, task_id = salvage_ids(response.body)
        raise MalformedMessageError(f"not a task: {error}", job_id=job_id, task_id=task_id) from None
    if len(task.job_id) > _ID_LIMIT or len(task.task_id) > _ID_LIMIT:
        raise MalformedMessageError(f"not a task: an id of more than {_ID_LIMIT} characters")
    if len(task.type) > _ID_LIMIT:
        text = f"not a task: a type of more than {_ID_LIMIT} characters"
        raise MalformedMessageError(text, job_id=task.job_id, task_id=task.task_id)
    return task


def decode_registration(response: Response) -> RegistrationReply:
    """Read the answer to a registration."""
    reply = _decode(_registration_decoder, response, "the answer to a registration")
    if reply.status != "registered":
        raise MalformedMessageError(f"not a registration's answer: status {reply.status!r:.100}")
    if len(reply.version or "") > _VERSION_LIMIT:
        raise MalformedMessageError(f"not a registration's answer: a version of more than {_VERSION_LIMIT} characters")
    if reply.access_token:
        _check_token(reply.access_token, "the answer to a registration")
    return reply


def decode_heartbeat(response: Response) -> HeartbeatReply:
    """Read the answer to a heartbeat.

    Its status must be "ok": any server may answer with an object. Any other field of the wrong type counts as absent.
    """
    raise_for_status(response)
    try:
        raw = msgspec.json.decode(response.body)
    except DECODE_ERRORS as error:
        raise MalformedMessageError(f"not the answer to a heartbeat: {error}") from None
    fields = as_object(raw)
    if fields.get("status") != "ok":
        raise MalformedMessageError('not the answer to a heartbeat: it should be an object whose status is "ok"')
    return HeartbeatReply(
        cancel_ids=as_texts(fields.get("cancel_task_ids")),
        jitter_ms=as_number(fields.get("next_heartbeat_jitter_ms")) or 0.0,
        full_sync=fields.get("require_full_sync") is True,
    )


def decode_result(response: Response) -> ResultReply:
    """Read the answer to a result."""
    reply = _decode(_result_decoder, response, "the answer to a result")
    if not reply.final:
        raise MalformedMessageError(f"not the answer to a result: status {reply.status!r:.100}")
    return reply if reply.reason is reply.message is None else _brief(reply, "reason", "message")


def decode_event(response: Response) -> EventReply:
    """Read the answer to an event. A refusal counts only if the orchestrator announces itself."""
    reply = _decode(_event_decoder, response, "the answer to an event")
    if reply.accepted or (reply.status == "error" and response.from_orchestrator):
        return reply if reply.accepted else _brief(reply, "code", "message")
    raise MalformedMessageError(f"not the answer to an event: status {reply.status!r:.100}")


def decode_token(response: Response) -> TokenReply:
    """Read the answer to a request for tokens."""
    reply = _decode(_token_decoder, response, "a token")
    _check_token(reply.access_token, "a token")
    return reply


def decode_command(data: bytes | str) -> Command:
    """Read a message of the commands' WebSocket."""
    try:
        return _command_decoder.decode(data)
    except DECODE_ERRORS as error:
        raise MalformedMessageError(f"not a command: {error}") from None


def raise_for_status(response: Response) -> None:
    """Raise `RejectedError` for every status except 2xx; RXON has no redirects."""
    if not 200 <= response.status < 300:
        retry_after = parse_retry_after(response.headers.get("retry-after"), response.headers.get("date"))
        raise RejectedError(
            response.status,
            _detail(response),
            retry_after=retry_after,
            from_orchestrator=response.from_orchestrator,
        )


def parse_retry_after(value: str | None, date: str | None = None) -> float | None:
    """Read a ``Retry-After`` header: seconds, or an HTTP date, relative to the answer's own ``Date``.

    Returns None if it is missing or unusable.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[-_DIGITS:]) if len(text.lstrip("0")) <= _DIGITS else 10.0**_DIGITS
    until, now = parse_http_date(text), parse_http_date(date)
    if until is None or now is None:
        return None
    return max(0.0, until - now)


@functools.lru_cache(maxsize=16)  # every answer has one, and it changes once a second
def parse_http_date(value: str | None) -> float | None:
    """Return an HTTP date in Unix seconds, or None if it is missing or not a date."""
    if not value:
        return None
    match = _HTTP_DATE.search(value)
    if match is None or match["month"] not in _MONTHS:
        return None
    month = 1 + _MONTHS.index(match["month"])
    try:
        hour, minute, second = (int(part) for part in match["time"].split(":"))
        moment = datetime(int(match["year"]), month, int(match["day"]), hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return moment.timestamp()


def _decode(decoder: msgspec.json.Decoder[_T], response: Response, what: str) -> _T:
    raise_for_status(response)
    try:
        return decoder.decode(response.body)
    except DECODE_ERRORS as error:
        raise MalformedMessageError(f"not {what}: {error}") from None


def _brief(reply: _S, *names: str) -> _S:
    """Return a reply with these texts shortened."""
    texts = {name: as_text(getattr(reply, name)) for name in names}
    return msgspec.structs.replace(reply, **{name: text[:_DETAIL_LIMIT] for name, text in texts.items() if text})


def _check_token(token: str, what: str) -> None:
    """Raise `MalformedMessageError` for a token that cannot be sent in a header."""
    if not _TOKEN.fullmatch(token):
        raise MalformedMessageError(f"not {what}: an access token must have 1 to 8192 printable ASCII characters")


def salvage_ids(body: bytes) -> tuple[str | None, str | None]:
    """Read the ids of a malformed task: the standard library's parser accepts more than the strict one."""
    try:
        raw = as_object(json.loads(body))
    except (ValueError, RecursionError):
        return None, None
    return _id(raw.get("job_id")), _id(raw.get("task_id"))


def _id(value: object) -> str | None:
    """Return a plausible id; it goes into logs and answers although the rest of the task is invalid."""
    text = as_text(value)
    return text if text and len(text) <= _ID_LIMIT and text.isprintable() else None


def _detail(response: Response) -> str:
    """Shorten an error body's text for people."""
    text = response.body[: 8 * _DETAIL_LIMIT].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return "an HTML page (is there a proxy in between?)"
    with contextlib.suppress(ValueError, RecursionError):  # plain text, then
        text = as_text(as_object(json.loads(text)).get("error")) or text
    return "".join(c if c.isprintable() else " " for c in text[:_DETAIL_LIMIT])
