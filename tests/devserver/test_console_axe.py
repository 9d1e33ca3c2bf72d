"""What axe finds on the console: nothing, on any view, in any color and width."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page, expect

from avtomatika_worker.devserver import Console, EmbeddedOrchestrator, Fault, TaskLogs
from avtomatika_worker.devserver.console.shown_program import Program
from avtomatika_worker.protocol.messages import ResultError, SkillInfo
from devserver.browser import browser, opened
from devserver.support import WorkerClient
from needs import needs

pytestmark = needs("axe_playwright_python")

SIZE = {"type": "object", "properties": {"width": {"type": "integer"}}, "required": ["width"]}
SCHEMA = {
    "type": "object",
    "properties": {
        "flag": {"type": "boolean", "default": True},
        "kind": {"enum": ["one", "two"]},
        "name": {"type": "string", "description": "Whom to greet"},
        "picture": {"type": "string"},
        "prices": {"type": "object", "additionalProperties": {"type": "number"}},
        "shape": {"anyOf": [{**SIZE, "title": "Size"}, {"type": "integer"}]},
        "sizes": {"type": "array", "items": SIZE, "minItems": 1},
    },
    "required": ["name", "shape", "sizes"],
}
SKILLS = (
    SkillInfo(name="greet", type="greet", input_schema=SCHEMA, description="Greet.", properties={"category": "text"}),
    SkillInfo(name="free", type="free", description="Take anything."),
)
LOOKS: list[dict[str, Any]] = [
    {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    for scheme in ("light", "dark")
    for width in (1440, 390)
]
FINDINGS = """async () => (await axe.run({resultTypes: ["violations"]})).violations.flatMap(
    each => each.nodes.map(node => `${each.id}: ${node.html.slice(0, 150)} (${node.failureSummary})`))"""


def axe_script() -> str:
    spec = find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text("utf-8")


@pytest.fixture
async def served() -> AsyncIterator[tuple[EmbeddedOrchestrator, Program, list[str]]]:
    """An orchestrator with a running, a queued, a successful and a failed run; the ids of the last two."""
    program = Program({})
    console = Console(logs=TaskLogs(), program=program)
    async with (
        EmbeddedOrchestrator(console=console, poll_time=0.05) as orchestrator,
        aiohttp.ClientSession() as session,
    ):
        worker = WorkerClient(orchestrator, session, skills=SKILLS)
        await worker.register()
        done = orchestrator.submit("free", {"text": "hello"})
        task = await worker.task()
        await worker.event(task, "chunk", {"attempt": 1, "index": 0, "data": "to be"})
        await worker.event(task, "alert", {"level": 1})
        await worker.result(task, data={"rows": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], "deep": {"one": {"two": 3}}})
        failed = orchestrator.submit("free", {})
        error = ResultError(code="PERMANENT_ERROR", message="it went wrong", details={"path": "$.a", "allowed": ["b"]})
        await worker.result(await worker.task(), "failure", error=error)
        orchestrator.submit("free", {"a": 1})
        await worker.event(await worker.task(), "progress", {"progress": 0.5, "message": "half"})
        orchestrator.submit("free", {"a": 2})
        orchestrator.inject(Fault("heartbeat", "status", status=503, times=5))
        await worker.heartbeat()
        yield orchestrator, program, [done.job_id, failed.job_id]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look['color_scheme']} {look['viewport']['width']}")
async def test_axe_finds_nothing_on_any_view(
    served: tuple[EmbeddedOrchestrator, Program, list[str]], look: dict[str, Any]
) -> None:
    orchestrator, program, (done, failed) = served
    script, found = axe_script(), {}
    async with browser() as chromium, opened(chromium, orchestrator.url, **look) as page:
        await expect(page.locator("#link")).to_contain_text("protocol")
        await page.evaluate(script)
        found["skills"] = await page.evaluate(FINDINGS)
        runs = [f"run/{done}/{tab}" for tab in ("output", "stream", "logs", "params")]
        for address in ("skill/greet", *runs, f"run/{failed}", "run/none", "runs", "worker", "faults"):
            await page.evaluate("address => { location.hash = `#/${address}`; }", address)
            await settled(page)
            found[address] = await page.evaluate(FINDINGS)
        await page.keyboard.press("?")
        found["keys"] = await page.evaluate(FINDINGS)
        await page.keyboard.press("Escape")
        program.problem = "Traceback"
        await expect(page.locator("#broken")).to_be_visible()
        found["broken"] = await page.evaluate(FINDINGS)
    assert {address: lines[:4] for address, lines in found.items() if lines} == {}


async def settled(page: Page) -> None:
    """Wait until what an address names has been drawn."""
    await expect(page.locator(".details")).not_to_have_text("…")
    await page.evaluate("() => new Promise(requestAnimationFrame)")
