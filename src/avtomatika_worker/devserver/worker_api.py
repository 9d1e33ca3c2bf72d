"""The worker side of the orchestrator: RXON over HTTP (RXON.md, "Transport")."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import web
from multidict import CIMultiDict

from avtomatika_worker.devserver.answers import Answers, break_connection, common_name
from avtomatika_worker.devserver.changes import Hub
from avtomatika_worker.devserver.command_socket import CommandChannels
from avtomatika_worker.devserver.faults import Fault, FaultBook
from avtomatika_worker.devserver.jobs import NewJob
from avtomatika_worker.devserver.orchestrator import Orchestrator, ResultMetadataError
from avtomatika_worker.devserver.orchestrator_settings import OrchestratorSettings
from avtomatika_worker.devserver.polls import Polls
from avtomatika_worker.devserver.releases import Release
from avtomatika_worker.devserver.snapshots import RecordedCall
from avtomatika_worker.devserver.task_payloads import task_bytes
from avtomatika_worker.devserver.verification import IssuedTokens, RateLimiter, Refusal, TokenDesk, Verifier, parsed
from avtomatika_worker.narrowing import is_mapping
from avtomatika_worker.protocol.codec import (
    EVENT_PATH,
    REFRESH_PATH,
    REGISTER_PATH,
    RESULT_PATH,
    SKILL_CALL_PATH,
    TOKEN_HEADER,
    TOKEN_PATH,
    VERSION_HEADER,
    WORKER_ID_HEADER,
    commands_path,
    heartbeat_path,
    poll_path,
)
from avtomatika_worker.protocol.coerce import as_object, as_text
from avtomatika_worker.protocol.signing import Signer

_CALLS_KEPT: Final = 2000
_BYTES_KEPT: Final = 64 * 2**20
_IGNORED: Final = {
    "deadline_exceeded": "the job's deadline has passed",
    "job_cancelled": "the job was cancelled",
    "job_not_found": "there is no such job",
    "worker_mismatch": "the task was given to another worker",
    "stale_task": "the task is not the job's current one",
    "job_already_terminated": "the job has already ended",
    "contract_violation_error": "the payload violates the schema that the skill announced",
}
_WITH_MESSAGE: Final = frozenset({"register", "heartbeat", "result", "event"})
_Body = bytes | dict[str, Any] | None
_Process = Callable[[web.Request, RecordedCall], Awaitable[_Body]]


class WorkerApi:
    """Serves the workers' calls through `routes`."""

    def __init__(
        self,
        release: Release,
        settings: OrchestratorSettings,
        orchestrator: Orchestrator,
        desk: TokenDesk,
        faults: FaultBook,
        clock: Callable[[], float],
        hub: Hub,
    ) -> None:
        self._release = release
        self._settings = settings
        self._orchestrator = orchestrator
        self._verifier = Verifier(
            release,
            settings.token,
            settings.individual_tokens or {},
            desk,
            access_tokens_required=settings.issue_tokens,
        )
        self._desk = desk
        self._limiter = RateLimiter(settings.rate_limits or {}, settings.rate_period)
        self._faults = faults
        self.task_signer: Signer | None = Signer(settings.secret_key) if settings.secret_key else None
        self._clock = clock
        self._hub = hub
        self.answers: Answers = Answers(release, clock)
        self.polls: Polls = Polls(orchestrator, hub)
        self.commands: CommandChannels = CommandChannels(orchestrator, hub)
        self.requests: deque[RecordedCall] = deque()
        self._bytes_kept = 0

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of RXON."""
        worker = "{worker_id}"
        return [
            web.post(REGISTER_PATH, self._serving("register", self._register)),
            web.get(poll_path(worker), self._serving("poll", self._poll), allow_head=False),
            web.post(RESULT_PATH, self._serving("result", self._result)),
            web.patch(heartbeat_path(worker), self._serving("heartbeat", self._heartbeat)),
            web.post(EVENT_PATH, self._serving("event", self._event)),
            web.post(TOKEN_PATH, self._serving("token", self._token)),
            web.post(REFRESH_PATH, self._serving("token", self._refresh)),
            web.post(SKILL_CALL_PATH, self._serving("skill_call", self._call_skill)),
            web.get(commands_path(worker), self._websocket, allow_head=False),
        ]

    # ------------------------------------------------------------------------------------------- every call

    def _serving(self, name: str, process: _Process) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = self._incoming(name, request, await request.read())
            fault = self._faults.next_for(call)
            if fault is None:
                return await self._answer(request, call, process)
            return await self._misbehave(request, call, process, fault)

        return handle

    def _incoming(self, name: str, request: web.Request, body: bytes) -> RecordedCall:
        headers = CIMultiDict(request.headers)
        if TOKEN_HEADER in headers:
            headers[TOKEN_HEADER] = "***"
        return RecordedCall(
            call=name,
            method=request.method,
            path=request.path,
            query=request.query_string,
            headers=headers,
            body=body,
            time=self._clock(),
        )

    def _record(self, call: RecordedCall, status: int, reply: bytes = b"") -> None:
        call.status, call.reply = status, reply
        self._bytes_kept += len(call.body) + len(reply)
        while self.requests and (len(self.requests) >= _CALLS_KEPT or self._bytes_kept > _BYTES_KEPT):
            oldest = self.requests.popleft()
            self._bytes_kept -= len(oldest.body) + len(oldest.reply)
        self.requests.append(call)
        self._hub.touch()

    async def _answer(self, request: web.Request, call: RecordedCall, process: _Process) -> web.Response:
        try:
            self._admit(request, call)
            response = self.answers.ok(await process(request, call))
        except Refusal as refusal:
            if refusal.problem:
                worker_id = request.match_info.get("worker_id") or request.headers.get(WORKER_ID_HEADER)
                self._orchestrator.problem(call.call, worker_id, refusal.status, refusal.text)
            response = self.answers.refused(refusal)
        except asyncio.CancelledError:  # the caller is gone
            self._record(call, 0)
            raise
        self._record(call, response.status, response.body if isinstance(response.body, bytes) else b"")
        return response

    async def _misbehave(
        self, request: web.Request, call: RecordedCall, process: _Process, fault: Fault
    ) -> web.StreamResponse:
        call.fault = fault.kind
        if fault.delay > 0 and fault.kind != "answer_late":
            await asyncio.sleep(fault.delay)
        if fault.kind in {"status", "html", "body"}:
            response = self.answers.scripted(fault)
            self._record(call, response.status, response.body if isinstance(response.body, bytes) else b"")
            return response
        answer = await self._answer(request, call, process) if fault.processed else web.Response()
        if fault.kind == "answer_late":
            await asyncio.sleep(fault.delay)
        if fault.kind in {"delay", "answer_late"}:
            return answer
        break_connection(request, fault, call)
        if not fault.processed:
            self._record(call, 0)
        return answer

    def _admit(self, request: web.Request, call: RecordedCall) -> None:
        """Check the caller's rate and identity, and the message's size."""
        path_id, header_id = request.match_info.get("worker_id"), request.headers.get(WORKER_ID_HEADER)
        address = request.remote or ""
        if self._release.limits_first:
            self._limiter.check(call.call, path_id or address, self._clock())
        self._check_size(call)
        self._identify(request, call, path_id, header_id)
        if self._settings.rate_limits and not self._release.limits_first:
            if call.call in _WITH_MESSAGE:
                parsed(call.body)  # what cannot be read is not counted
            self._limiter.check(call.call, path_id or header_id or address, self._clock())

    def _identify(self, request: web.Request, call: RecordedCall, path_id: str | None, header_id: str | None) -> None:
        if path_id is not None and header_id is not None and path_id != header_id:
            raise Refusal(403, f"{WORKER_ID_HEADER} is {header_id}, the call is {path_id}'s")
        worker_id = path_id or header_id
        certified = common_name(request)
        if certified is not None and certified != worker_id:
            raise Refusal(403, f"the client certificate is {certified}'s, the call is {worker_id}'s")
        configured = call.call in {"register", "token"}
        token = request.headers.get(TOKEN_HEADER)
        self._verifier.authenticate(worker_id, token, self._clock(), configured=configured)

    def _check_size(self, call: RecordedCall) -> None:
        """Refuse messages that released orchestrators do not even read."""
        most = self._settings.max_message
        if len(call.body) > most:
            text = f"the message is {len(call.body)} bytes long: orchestrators accept {most}"
            raise Refusal(413, text)

    def _message(self, request: web.Request, call: RecordedCall) -> dict[str, Any]:
        """Return the call's verified message."""
        message = parsed(call.body)
        path_id = request.match_info.get("worker_id") or request.headers.get(WORKER_ID_HEADER)
        self._verifier.verify(call.call, message, path_id, request.headers.get(TOKEN_HEADER), self._clock())
        return message

    # ------------------------------------------------------------------------------------------- the calls

    async def _register(self, request: web.Request, call: RecordedCall) -> _Body:
        worker = self._orchestrator.register(self._message(request, call))
        worker.connected = self.commands.is_connected(worker.worker_id)
        worker.polls = self.polls.count(worker.worker_id)
        version = self._release.dialect.version
        reply: dict[str, Any] = {"status": "registered", "version": version}
        theirs = request.headers.get(VERSION_HEADER)
        if theirs != version:
            reply["warning"] = f"this orchestrator speaks {version}, the worker {theirs or 'does not say what'}"
        if self._settings.issue_tokens:
            reply |= self._token_reply(worker.worker_id, self._desk.issue(worker.worker_id, self._clock()))
        return reply

    async def _poll(self, request: web.Request, _call: RecordedCall) -> _Body:
        worker_id = request.match_info["worker_id"]
        names = request.query.get("available_skills") if self._release.dialect.skill_names else None
        skills = None if names is None else [name for name in names.split(",") if name]
        job = await self.polls.next_task(worker_id, skills, self._settings.poll_time)
        return None if job is None else task_bytes(job, self._release, self._clock(), self.task_signer)

    async def _heartbeat(self, request: web.Request, call: RecordedCall) -> _Body:
        reply = {"status": "ok", **self._orchestrator.heartbeat(self._message(request, call))}
        if self._settings.heartbeat_jitter_ms is not None:
            reply["next_heartbeat_jitter_ms"] = self._settings.heartbeat_jitter_ms
        return reply

    async def _result(self, request: web.Request, call: RecordedCall) -> _Body:
        message = self._message(request, call)
        try:
            received = self._orchestrator.result(message)
        except ResultMetadataError:
            text = "result metadata for a task without metadata: orchestrators fail on it permanently"
            raise Refusal(500, text) from None
        if received.reason is not None:
            return {"status": "ignored", "reason": received.reason, "message": _IGNORED[received.reason]}
        job = self._orchestrator.book.jobs.get(message["job_id"])
        status = (job and job.result_status) or message.get("status") or "success"
        return {"status": "accepted", "transition": f"{status}_{'transition' if status == 'success' else 'handled'}"}

    async def _event(self, request: web.Request, call: RecordedCall) -> _Body:
        status = self._orchestrator.event(self._message(request, call))
        if status == "event_accepted":
            return {"status": status}
        return {"status": "error", "code": status.upper(), "message": _IGNORED[status]}

    async def _call_skill(self, _request: web.Request, call: RecordedCall) -> _Body:
        """Run a skill for another one. No released orchestrator has this route: it is that of `OrchestratorClient`."""
        try:
            wish = as_object(orjson.loads(call.body))
        except ValueError:
            raise Refusal(400, "not JSON") from None
        skill: object = wish.get("skill_name")
        params: object = wish.get("params", {})
        if not isinstance(skill, str) or not is_mapping(params):
            raise Refusal(400, "skill_name must be a text, and params an object")
        job = await self._orchestrator.submit(NewJob(skill=skill, params=params)).done(None)
        return {"job_id": job.job_id, "status": job.result_status, "data": job.result, "error": job.error}

    async def _token(self, request: web.Request, _call: RecordedCall) -> _Body:
        worker_id = request.headers.get(WORKER_ID_HEADER)
        if not self._release.tokens_without_mtls and common_name(request) is None:
            raise Refusal(403, "this version grants access tokens to client certificates only", problem=False)
        if not worker_id:
            raise Refusal(400, f"{WORKER_ID_HEADER} is missing")
        return self._token_reply(worker_id, self._desk.issue(worker_id, self._clock()))

    async def _refresh(self, _request: web.Request, call: RecordedCall) -> _Body:
        if not self._release.dialect.refresh_tokens:
            raise Refusal(404, "this version has no refresh tokens")
        try:
            refresh_token = as_text(as_object(orjson.loads(call.body)).get("refresh_token"))
        except orjson.JSONDecodeError:
            raise Refusal(400, "the body is not JSON") from None
        refreshed = self._desk.refreshed(refresh_token or "", self._clock())
        if refreshed is None:
            raise Refusal(401, "no such refresh token: each can be used once", problem=False)
        return self._token_reply(*refreshed)

    def _token_reply(self, worker_id: str, tokens: IssuedTokens) -> dict[str, Any]:
        reply: dict[str, Any] = {
            "access_token": tokens.access_token,
            "expires_in": tokens.expires_in,
            "worker_id": worker_id,
        }
        if self._release.dialect.refresh_tokens:
            reply["refresh_token"] = tokens.refresh_token
        return reply

    # ------------------------------------------------------------------------------------------- commands

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        call = self._incoming("ws", request, b"")
        fault = self._faults.next_for(call)
        if fault is not None:
            call.fault = fault.kind
            if fault.delay > 0:
                await asyncio.sleep(fault.delay)
            if fault.kind in {"status", "html"}:
                response = self.answers.scripted(fault)
                self._record(call, response.status)
                return response
            if fault.kind not in {"delay", "answer_late", "body", "drop_after"}:
                break_connection(request, fault, call)
                self._record(call, 0)
                return web.Response()
        try:
            self._admit(request, call)
        except Refusal as refusal:
            if refusal.problem:
                self._orchestrator.problem("ws", request.match_info["worker_id"], refusal.status, refusal.text)
            if refusal.status == 429 and not self._release.limits_first:
                refusal = Refusal(500, refusal.text)  # so they answer
            self._record(call, refusal.status)
            return self.answers.refused(refusal)
        self._record(call, 101)
        greeting = fault.body if fault is not None and fault.kind == "body" else None
        drop = fault is not None and fault.kind == "drop_after"
        return await self.commands.serve(
            request, self.answers.headers(), self._event_over_websocket, greeting, drop=drop
        )

    def _event_over_websocket(self, request: web.Request, body: bytes) -> None:
        """Accept a WebSocket message as an event; it never gets an answer."""
        call = self._incoming("event", request, body)
        try:
            self._orchestrator.event(self._message(request, call))
        except Refusal as refusal:
            if refusal.problem:
                self._orchestrator.problem("event", request.match_info["worker_id"], refusal.status, refusal.text)
            self._record(call, refusal.status)
        else:
            self._record(call, 200)
