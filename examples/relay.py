"""A relay for browsers: starts a job at the orchestrator, and passes its chunks on as server-sent events.

    ORCHESTRATOR_URL=http://127.0.0.1:8080 CLIENT_TOKEN=… python relay.py
    curl -N 'http://127.0.0.1:8081/stream?prompt=to+be+or+not+to+be'

The orchestrator calls the relay's webhooks, so it must reach RELAY_URL. Events come as the orchestrator sends them: a
client orders them by ``attempt`` and ``index`` (docs/guide/streaming.md).
"""

import asyncio
import json
import os
import secrets
from typing import Any

import aiohttp
from aiohttp import web

ORCHESTRATOR = os.environ.get("ORCHESTRATOR_URL", "http://127.0.0.1:8080")
BLUEPRINT = os.environ.get("BLUEPRINT", "complete")
HOST, PORT = os.environ.get("RELAY_HOST", "127.0.0.1"), int(os.environ.get("RELAY_PORT", "8081"))
RELAY = os.environ.get("RELAY_URL", f"http://{HOST}:{PORT}")
QUIET = 15.0
"""Seconds of silence after which a comment keeps the connection open."""

calls: dict[str, asyncio.Queue[dict[str, Any]]] = {}
"""The webhooks' calls for each open stream. Nobody can guess a stream's name, and so send to it."""


async def stream(request: web.Request) -> web.StreamResponse:
    name, queue = secrets.token_urlsafe(), asyncio.Queue[dict[str, Any]](1_000)
    calls[name] = queue
    try:
        await submit({"prompt": request.query["prompt"]}, f"{RELAY}/hooks/{name}")
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await answer.prepare(request)
        while True:
            try:
                call = await asyncio.wait_for(queue.get(), QUIET)
            except TimeoutError:
                await answer.write(b":\n\n")
                continue
            if call["event"] == "worker_event:chunk":
                await answer.write(sse("chunk", call["result"]))
            elif call["event"].startswith("job_"):
                await answer.write(sse("end", {"event": call["event"], "job_id": call["job_id"]}))
                return answer
    finally:
        del calls[name]


async def submit(data: dict[str, Any], webhook: str) -> None:
    headers = {"X-Client-Token": os.environ.get("CLIENT_TOKEN", "client-token")}
    body = {"initial_data": data, **data, "webhook_url": webhook}  # older releases read the data at the top
    url = f"{ORCHESTRATOR}/api/v1/jobs/{BLUEPRINT}"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=body) as answer:
        if answer.status >= 300:
            raise web.HTTPBadGateway(text=f"the orchestrator answers {answer.status}")


async def hook(request: web.Request) -> web.Response:
    queue = calls.get(request.match_info["name"])
    if queue is None:
        return web.Response(status=410)  # the client has gone
    await queue.put(await request.json())
    return web.Response()


def sse(event: str, data: object) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def make_app() -> web.Application:
    app = web.Application(client_max_size=4 * 2**20)
    app.add_routes([web.get("/stream", stream), web.post("/hooks/{name}", hook)])
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host=HOST, port=PORT)
