"""The worker that the end-to-end tests run against published orchestrators; only the public interface is used.

``SKILL_PREFIX`` keeps workers apart that share an orchestrator: each has skills of its own names.
"""

import asyncio
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from avtomatika_worker import PermanentError, TaskContext, TaskFiles, TransientError, Worker

PREFIX = os.environ.get("SKILL_PREFIX", "")
MARKS = Path(os.environ.get("MARKS_DIR", "."))

worker = Worker(worker_type="e2e")
_running = 0
_seen: set[str] = set()


@dataclass
class Milestone:
    """An event of ``count``."""

    number: int
    label: str


@worker.skill(PREFIX + "echo", price=0.5, category="tests")
async def echo(params: dict[str, Any]) -> dict[str, Any]:
    """Return the params."""
    return {"echo": params}


@worker.skill(PREFIX + "values")
async def values() -> dict[str, object]:
    return {"null": None, "two": 2.0, "zero": -0.0, "deep": [{"null": None, "two": 2.0}], "row": [1, None]}


@worker.skill(PREFIX + "large")
async def large(size: int) -> dict[str, str]:
    """Return a text of so many characters."""
    return {"text": "x" * size}


@worker.skill(PREFIX + "crowd")
async def crowd(i: int, seconds: float = 0.05) -> dict[str, int]:
    """Return how many of these ran together when this one had begun."""
    global _running
    _running += 1
    try:
        await asyncio.sleep(seconds)
        return {"i": i, "together": _running}
    finally:
        _running -= 1


@worker.skill(PREFIX + "narrow", max_concurrent=1)
async def narrow(i: int, seconds: float = 0.2) -> dict[str, int]:
    """Do the same as ``crowd``, one at a time."""
    return await crowd(i, seconds)


@worker.skill(PREFIX + "traced")
async def traced(ctx: TaskContext) -> dict[str, Any]:
    """Return the trace that came with the task."""
    return {"tracing_context": ctx.tracing_context}


@worker.skill(PREFIX + "count", events={"milestone": Milestone})
async def count(to: int, ctx: TaskContext) -> dict[str, Any]:
    """Count, with progress and events; one event breaks its schema and one is not declared."""
    sent = []
    for number in range(1, to + 1):
        await ctx.send_progress(number / to, f"{number} of {to}")
        sent.append(bool(await ctx.send_event("milestone", Milestone(number, f"mile {number}"))))
    broken = bool(await ctx.send_event("milestone", {"number": "many", "label": "broken"}))
    undeclared = bool(await ctx.send_event("surprise", {"number": 1}))
    return {"counted": to, "sent": sent, "broken": broken, "undeclared": undeclared}


@worker.skill(PREFIX + "review", output_statuses=["needs_review"])
async def review(params: dict[str, Any]) -> dict[str, Any]:
    """Ask for a review."""
    return {"status": "needs_review", "data": {"doubt": params.get("doubt", 0.5)}}


@worker.skill(PREFIX + "typed")
async def typed(width: int, title: str = "untitled") -> dict[str, Any]:
    """Take arguments whose schema is inferred: the orchestrator checks it before it dispatches."""
    return {"width": width, "title": title}


@worker.skill(PREFIX + "strict", input_schema={"type": "object"})
async def strict(size: Annotated[int, msgspec.Meta(ge=1)]) -> dict[str, int]:
    """Take an argument that only the worker checks: the announced schema lets everything through."""
    return {"size": size}


@worker.skill(PREFIX + "permanent")
async def permanent() -> None:
    """Fail for good."""
    raise PermanentError("the picture is gone", {"picture": 7})


@worker.skill(PREFIX + "flaky")
async def flaky(job_id: str) -> dict[str, bool]:
    """Fail the first time a job comes, succeed the second."""
    if job_id not in _seen:
        _seen.add(job_id)
        raise TransientError("the first time never works")
    return {"second": True}


@worker.skill(PREFIX + "slow")
async def slow(seconds: float, ctx: TaskContext) -> dict[str, str]:
    """Take a while; leave a file behind when it is cancelled."""
    await ctx.send_progress(0.25, "under way")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        (MARKS / f"{ctx.job_id}.cancelled").write_text(str(ctx.cancel_reason))
        raise
    return {"worker": ctx.worker_id}


@worker.skill(PREFIX + "block")
def block(seconds: float, ctx: TaskContext) -> dict[str, str]:
    """Block a thread."""
    ctx.send_progress(0.5, "blocking")
    time.sleep(seconds)
    return {"thread": threading.current_thread().name}


@worker.skill(PREFIX + "shout")
async def shout(source: Path, files: TaskFiles) -> dict[str, Any]:
    """Write a file's text in capitals to another one."""
    text = await files.read(source)
    return {"loud": await files.write("loud.txt", text.upper()), "name": source.name}
