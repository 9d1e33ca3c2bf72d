"""A stand-in for a model server, to try streaming.py without a model: it repeats the prompt, word by word.

It has a page, too, for scrape.py.

python parrot.py COMMAND …    runs a command with MODEL_URL pointing here
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

PAUSE = 0.02  # seconds between words


async def complete(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    prompt = body["messages"][-1]["content"]
    if prompt == "busy":
        return web.Response(status=429)
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for word in prompt.split()[: body["max_tokens"]]:
        chunk = {"choices": [{"index": 0, "delta": {"content": f"{word} "}}]}
        await answer.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await asyncio.sleep(PAUSE)
    await answer.write(b"data: [DONE]\n\n")
    return answer


async def page(_request: web.Request) -> web.Response:
    text = '<title>Parrot</title>There is <a href="/v1/chat/completions">one thing</a> that I can.'
    return web.Response(text=text, content_type="text/html")


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """Serve on a free port, and provide the value for MODEL_URL."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/", page)
    runner = web.AppRunner(app, handler_cancellation=True)  # as model servers do: nobody listens, nothing is computed
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def main() -> int:
    async with serving() as url:
        process = await asyncio.create_subprocess_exec(*sys.argv[1:], env={**os.environ, "MODEL_URL": url})
        return await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
