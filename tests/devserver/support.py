"""A worker reduced to its calls: the codec's requests, sent with aiohttp."""

from __future__ import annotations

import io
import itertools
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import orjson

from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.protocol.codec import Codec, Request, commands_path
from avtomatika_worker.protocol.dialects import Dialect, choose
from avtomatika_worker.protocol.messages import (
    Capabilities,
    Event,
    Heartbeat,
    Resources,
    ResultError,
    SkillInfo,
    TaskResult,
    WorkerRegistration,
    WorkerStatus,
)
from avtomatika_worker.protocol.signing import Signer

ECHO = SkillInfo(name="echo", type="echo")


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class WorkerClient:
    """What a worker says, when the test says so."""

    def __init__(
        self,
        orchestrator: EmbeddedOrchestrator,
        session: aiohttp.ClientSession,
        *,
        worker_id: str = "w1",
        token: str = "dev-token",
        skills: tuple[SkillInfo, ...] = (ECHO,),
    ) -> None:
        self.orchestrator = orchestrator
        self.session = session
        self.worker_id = worker_id
        self.token = token
        self.skills = skills
        self.dialect: Dialect = choose(orchestrator.version).dialect
        nonces = itertools.count()
        self.codec = Codec(worker_id, token, lambda: f"{worker_id}-{next(nonces)}")

    async def send(self, request: Request, headers: Mapping[str, str] | None = None) -> Reply:
        sent = {"Content-Type": "application/json", **self.codec.headers(self.token, self.dialect), **(headers or {})}
        url = self.orchestrator.url + request.path
        body = io.BytesIO(request.body) if request.body is not None else None  # aiohttp warns of large bytes
        async with self.session.request(request.method, url, data=body, headers=sent) as response:
            return Reply(response.status, response.headers, await response.read())

    def registration(self, **changes: Any) -> Request:
        registration = WorkerRegistration(
            worker_id=self.worker_id,
            worker_type="tester",
            supported_skills=self.skills,
            available_skills=tuple(skill.name for skill in self.skills),
            resources=Resources(max_concurrent_tasks=2, cpu_cores=2, ram_gb=4),
            capabilities=Capabilities(hostname="host", ip_address="10.0.0.1"),
            skills_hash="hash",
        )
        changed = msgspec.structs.replace(registration, **changes)
        return self.codec.register(changed, self.dialect, self.orchestrator.now())

    async def register(self, **changes: Any) -> Reply:
        return await self.send(self.registration(**changes))

    def beat(self, status: WorkerStatus = WorkerStatus.IDLE, **fields: Any) -> Request:
        heartbeat = Heartbeat(
            worker_id=self.worker_id,
            status=status,
            skills_hash=fields.pop("skills_hash", "hash"),
            available_skills=fields.pop("available_skills", tuple(skill.name for skill in self.skills)),
            **fields,
        )
        return self.codec.heartbeat(heartbeat, self.dialect, self.orchestrator.now())

    async def heartbeat(self, status: WorkerStatus = WorkerStatus.IDLE, **fields: Any) -> Reply:
        return await self.send(self.beat(status, **fields))

    async def poll(self, *available: str) -> Reply:
        names = available or tuple(skill.name for skill in self.skills)
        return await self.send(self.codec.poll(30, names, (), self.dialect))

    async def task(self) -> dict[str, Any]:
        reply = await self.poll()
        assert reply.status == 200, (reply, [str(problem) for problem in self.orchestrator.problems])
        task: dict[str, Any] = reply.json
        return task

    def outcome(self, task: Mapping[str, Any], status: str = "success", **fields: Any) -> Request:
        result = TaskResult(
            job_id=task["job_id"],
            task_id=task["task_id"],
            worker_id=self.worker_id,
            origin_worker_id=self.worker_id,
            status=status,
            **fields,
        )
        return self.codec.result(result, self.dialect, self.orchestrator.now())

    async def result(self, task: Mapping[str, Any], status: str = "success", **fields: Any) -> Reply:
        return await self.send(self.outcome(task, status, **fields))

    async def failure(self, task: Mapping[str, Any], code: str) -> Reply:
        return await self.result(task, "failure", error=ResultError(code=code, message="it went wrong"))

    def happening(self, task: Mapping[str, Any] | None, event_type: str, payload: dict[str, Any]) -> Request:
        task = task or {}
        event = Event(
            event_id=str(uuid.uuid4()),
            worker_id=self.worker_id,
            origin_worker_id=self.worker_id,
            event_type=event_type,
            payload=payload,
            target_job_id=task.get("job_id"),
            target_task_id=task.get("task_id"),
            origin_task_id=task.get("task_id"),
        )
        return self.codec.event(event, self.dialect, self.orchestrator.now())

    async def event(self, task: Mapping[str, Any] | None, event_type: str, payload: dict[str, Any]) -> Reply:
        return await self.send(self.happening(task, event_type, payload))

    def websocket(self) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        url = self.orchestrator.url + commands_path(self.worker_id)
        return self.session.ws_connect(url, headers=self.codec.headers(self.token, self.dialect))

    async def websockets_on(self, **fields: Any) -> Reply:
        return await self.heartbeat(capabilities={"hostname": "host", "websockets": True}, **fields)


def tampered(request: Request, **fields: Any) -> Request:
    """Change fields of a signed body; None removes."""
    body = orjson.loads(request.body or b"{}")
    kept = {name: value for name, value in {**body, **fields}.items() if value is not None}
    return Request(request.method, request.path, orjson.dumps(kept))


def resigned(client: WorkerClient, request: Request, **fields: Any) -> Request:
    """Change fields of a body and sign it again, whatever they are."""
    message = {name: value for name, value in orjson.loads(request.body or b"{}").items() if name != "security"}
    message = {name: value for name, value in {**message, **fields}.items() if value is not None}
    unsigned = {name: value for name, value in message.items() if name != "bubbling_chain"}
    signature = Signer(client.token).sign(orjson.dumps(unsigned, option=orjson.OPT_SORT_KEYS))
    security = {"signature": signature, "signer_id": client.worker_id}
    return Request(request.method, request.path, orjson.dumps({**message, "security": security}))


Start = Callable[..., Coroutine[Any, Any, tuple[EmbeddedOrchestrator, WorkerClient]]]
