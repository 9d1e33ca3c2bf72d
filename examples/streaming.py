"""A language model that streams: the skill yields its tokens as they come.

Talks to any server with OpenAI's chat API (llama.cpp, vLLM, Ollama, OpenAI itself): MODEL_URL, MODEL_NAME, MODEL_KEY.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

import aiohttp
from msgspec import Meta

from avtomatika_worker import Final, PermanentError, TaskContext, TransientError, Worker

# A task here waits for the model: as many as the server computes side by side are of use.
worker = Worker(worker_type="llm", max_concurrent_tasks=4)


@dataclass
class Prompt:
    prompt: Annotated[str, Meta(min_length=1, max_length=100_000)]
    system: str = "You are a helpful assistant."
    max_tokens: Annotated[int, Meta(ge=1, le=8192)] = 512
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7


@dataclass
class Answer:
    text: str
    tokens: int


@worker.skill(category="AI", timeout=300)
async def complete(params: Prompt, ctx: TaskContext) -> AsyncIterator[str | Final[Answer]]:
    """Answer a prompt, token by token."""
    texts: list[str] = []
    # A cancelled task is closed here, and with it the connection: the model stops.
    async with aclosing(chat(params)) as tokens:
        async for text in tokens:
            texts.append(text)
            yield text
    ctx.add_cost("tokens", len(texts))
    yield Final(Answer("".join(texts), len(texts)))


async def chat(params: Prompt) -> AsyncGenerator[str]:
    """Yield what the model says. Raises TransientError for what may pass, PermanentError for what will not."""
    body = {
        "model": os.environ.get("MODEL_NAME", "llama3.2"),
        "messages": [{"role": "system", "content": params.system}, {"role": "user", "content": params.prompt}],
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "stream": True,
    }
    url = os.environ.get("MODEL_URL", "http://127.0.0.1:11434/v1") + "/chat/completions"
    headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("MODEL_KEY")) else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)  # of silence, not of the whole answer
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=body, headers=headers) as answer,
        ):
            await check(answer)
            async for data in events(answer):
                for choice in data.get("choices", ()):
                    if text := choice.get("delta", {}).get("content"):
                        yield text
    except (aiohttp.ClientError, TimeoutError) as error:
        raise TransientError(f"the model server does not answer: {error or 'timeout'}") from error


async def check(answer: aiohttp.ClientResponse) -> None:
    if answer.status == 429 or answer.status >= 500:
        raise TransientError(f"the model server is busy: HTTP {answer.status}")
    if answer.status != 200:
        raise PermanentError(f"the model server refuses: HTTP {answer.status}: {(await answer.text())[:200]}")


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON of server-sent events."""
    async for line in answer.content:
        data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
        if data and data != b"[DONE]":
            yield json.loads(data)


if __name__ == "__main__":
    worker.run()
