"""The least that a worker could do: poll, decode, run a coroutine, sign, deliver. No worker around it.

What it leaves out is what a worker is for: no registration, no heartbeats, no validation, no cancellation, no retries,
no log. Run as ``python -m bench.bare URL SLOTS``.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
import time
import uuid
from datetime import timedelta
from typing import Any, Final

import msgspec
import orjson
from pyreqwest.client import Client, ClientBuilder

from bench.stub import TOKEN

_WORKER_ID: Final = "bench-worker"
_HEADERS: Final = {"X-Worker-Token": TOKEN, "X-Worker-ID": _WORKER_ID, "X-RXON-Version": "1.0b17"}


class Task(msgspec.Struct):
    """What came."""

    job_id: str
    task_id: str
    type: str
    params: dict[str, Any]


_decoder: Final = msgspec.json.Decoder(Task)


async def echo(params: dict[str, Any]) -> dict[str, Any]:
    """Return what came."""
    return params


async def handle(client: Client, url: str, body: bytes, keyed: hmac.HMAC) -> None:
    """Run a task and deliver its result."""
    task = _decoder.decode(body)
    message = {
        "job_id": task.job_id,
        "task_id": task.task_id,
        "worker_id": _WORKER_ID,
        "origin_worker_id": _WORKER_ID,
        "status": "success",
        "data": await echo(task.params),
        "timestamp": int(time.time()),
        "nonce": uuid.uuid4().hex,
    }
    canonical = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
    signature = keyed.copy()
    signature.update(canonical)
    security = f',"security":{{"signature":"{signature.hexdigest()}","signer_id":"{_WORKER_ID}"}}}}'
    builder = client.post(url + "/_worker/tasks/result").headers(_HEADERS).timeout(timedelta(seconds=30))
    builder = builder.header("content-type", "application/json").body_bytes(canonical[:-1] + security.encode())
    response = await builder.build().send()
    msgspec.json.decode(bytes(await response.bytes()))


async def slot(client: Client, url: str, keyed: hmac.HMAC) -> None:
    """Take one task after the other, each in an asyncio task of its own."""
    path = f"{url}/_worker/workers/{_WORKER_ID}/tasks/next?timeout=30&available_skills=echo&hot_skills="
    loop = asyncio.get_running_loop()
    while True:
        response = await client.get(path).headers(_HEADERS).timeout(timedelta(seconds=120)).build().send()
        body = bytes(await response.bytes())
        if response.status == 200:
            await loop.create_task(handle(client, url, body, keyed))


async def loop_for_ever(url: str, slots: int) -> None:
    """Run so many slots side by side."""
    client = ClientBuilder().connect_timeout(timedelta(seconds=10)).build()
    keyed = hmac.new(TOKEN.encode(), digestmod=hashlib.sha256)
    async with asyncio.TaskGroup() as group:
        for _ in range(slots):
            group.create_task(slot(client, url, keyed))


if __name__ == "__main__":
    import uvloop

    uvloop.run(loop_for_ever(sys.argv[1], int(sys.argv[2])))
