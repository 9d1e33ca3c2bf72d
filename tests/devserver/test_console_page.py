"""The console in a browser: what people see, and do by clicks and keys."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import struct
import threading
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import aiohttp
import pytest
import pytest_asyncio
from msgspec import Meta
from playwright.async_api import Browser, Locator, Page, expect

from avtomatika_worker import InvalidInputError, PermanentError, TaskContext, TaskFiles, TransientError, Worker
from avtomatika_worker.devserver import Console, EmbeddedOrchestrator, FileRoom, JobRecord, TaskLogs
from avtomatika_worker.protocol.messages import SkillInfo
from avtomatika_worker.testing import WorkerHarness
from devserver.browser import browser, opened
from devserver.support import WorkerClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

expect.set_options(timeout=15_000)
_log = logging.getLogger("console_test")


# ---------------------------------------------------------------------------------------------------- the skills


@dataclass
class Size:
    """How large, in pixels."""

    width: Annotated[int, Meta(ge=1, le=4096)]
    height: Annotated[int, Meta(ge=1, le=4096)] = 10


@dataclass
class Everything:
    """All that a form can show."""

    title: Annotated[str, Meta(min_length=1, max_length=80)]
    size: Size
    scale: float
    colour: Literal["red", "green", "blue"]
    note: str | None = None
    copies: Annotated[int, Meta(ge=1, le=10)] = 3
    glossy: bool = False
    framed: bool | None = None
    tags: list[str] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    border: Size | None = None
    prices: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    either: int | str = 1


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x20\x80\x60" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Gates:
    """Holds tasks where a test wants to look at them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: set[str] = set()
        self._waiting: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}

    def open(self, name: str) -> None:
        with self._guard:
            self._open.add(name)
            if name in self._waiting:
                loop, event = self._waiting[name]
                loop.call_soon_threadsafe(event.set)  # the worker has a loop of its own, in another thread

    async def passed(self, name: str) -> None:
        event = asyncio.Event()
        with self._guard:
            self._waiting[name] = (asyncio.get_running_loop(), event)
            if name in self._open:
                return
        await event.wait()


def make_worker(gates: Gates) -> Worker:
    worker = Worker(worker_type="test", max_concurrent_tasks=4)

    @worker.skill(version="2.1.0", category="pictures", price=0.25, events={"step": {"type": "object"}})
    async def everything(params: Everything) -> dict[str, Any]:
        """Take everything a form can show."""
        return {"title": params.title}

    @worker.skill()
    async def gated(gate: str, ctx: TaskContext) -> dict[str, Any]:
        """Report what it does, then wait."""
        _log.info("gate %s is closed", gate)
        await ctx.send_event("arrived", {"gate": gate, "by": "<b>foot</b>"})
        await ctx.send_progress(0.5, "half of the way")
        await gates.passed(gate)
        return {"through": gate}

    @worker.skill()
    async def render(gate: str, ctx: TaskContext) -> None:
        """Report little progress after a moment, then wait."""
        await asyncio.sleep(0.05)  # the moment
        await ctx.send_progress(0.001, "the first of a thousand frames")
        await gates.passed(gate)

    @worker.skill()
    async def speak(gate: str) -> AsyncIterator[str]:
        """Speak, wait, and speak on."""
        yield "to be "
        yield "<b>or</b> "
        await gates.passed(gate)
        yield "not"

    @worker.skill()
    async def fail(kind: Literal["input", "permanent", "transient"], secret: str | None = None) -> None:
        """Fail."""
        if kind == "input":
            raise InvalidInputError("params.kind: that is no good", {"path": "$.kind", "allowed": ["other"]})
        raise {"permanent": PermanentError, "transient": TransientError}[kind](f"{kind} trouble")

    @worker.skill()
    async def table() -> dict[str, Any]:
        """Return all kinds of data."""
        rows = [{"name": "<img src=x onerror=alert(1)>", "price": 1.5}, {"name": "plum", "price": 20}]
        return {
            "rows": rows,
            "big": 9_007_199_254_740_993,
            "deep": {"one": {"two": {"three": [{"four": "bottom"}]}}},
            "inline": base64.b64encode(png(40, 30) + b"\0" * 200).decode(),
            "long": "words " * 500,
        }

    @worker.skill()
    async def free(params: dict[str, Any]) -> dict[str, Any]:
        """Take anything."""
        return params

    both = {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"$ref": "#/$defs/b"}}}]}
    defs = {"$defs": {"b": {"oneOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "integer"}}]}}}

    @worker.skill(input_schema={"type": "object", "required": ["b"], **both, **defs})
    async def written_by_hand(params: dict[str, Any]) -> dict[str, Any]:
        """Take what a schema of its author's says."""
        return params

    @worker.skill(input_schema={"type": "object", "additionalProperties": False})
    async def zero() -> dict[str, Any]:
        """Take nothing."""
        return {}

    @worker.skill()
    async def copy(source: Path, files: TaskFiles) -> dict[str, Any]:
        """Copy a picture."""
        content = await files.read(source, "rb")
        return {"size": len(content), "copy": await files.write("copy.png", content)}

    return worker


# ---------------------------------------------------------------------------------------------------- the fixtures


@dataclass
class Bench:
    """A worker, its orchestrator with the console, and the browser."""

    harness: WorkerHarness
    orchestrator: EmbeddedOrchestrator
    browser: Browser
    gates: Gates

    def latest(self, skill: str) -> JobRecord:
        return [job for job in self.orchestrator.jobs.values() if job.skill == skill][-1]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    root, gates, logs = tmp_path_factory.mktemp("files"), Gates(), TaskLogs()
    worker = make_worker(gates)
    logger = logging.getLogger()
    logger.addHandler(logs)
    level = _log.level
    _log.setLevel(logging.INFO)
    console = Console(logs=logs, file_room=FileRoom(root, as_uris=True), contracts=worker.skills.contracts())
    try:
        async with browser() as chromium, EmbeddedOrchestrator(console=console, max_attempts=2) as orchestrator:
            settings = {"file_store_root": root, "heartbeat_interval": 0.3}
            async with WorkerHarness(worker, settings=settings, orchestrator=orchestrator, own_thread=True) as harness:
                yield Bench(harness, orchestrator, chromium, gates)
    finally:
        _log.setLevel(level)
        logger.removeHandler(logs)


@pytest_asyncio.fixture(loop_scope="module")
async def page(bench: Bench) -> AsyncIterator[Page]:
    bench.orchestrator.clear_faults()
    async with opened(bench.browser, bench.orchestrator.url) as page:
        await expect(page.locator("#link")).to_contain_text("protocol")
        yield page


def at(page: Page, path: str) -> Locator:
    """The field of a param."""
    return page.locator(f"#main [data-path='{path}']")


async def open_skill(page: Page, name: str) -> None:
    await page.click(f"[data-skill={name}]")
    await expect(page.locator("#main h2")).to_have_text(name)


async def open_part(page: Page, name: str) -> None:
    await page.locator("#tabs").get_by_role("button", name=name).click()


async def run(page: Page) -> None:
    await page.get_by_role("button", name="Run", exact=True).click()


async def ran(page: Page, state: str = "finished") -> None:
    """Wait until the selected task is in a state."""
    await expect(page.locator(f".details .badge.{state}")).to_be_visible()


# ---------------------------------------------------------------------------------------------------- skills


async def test_a_skill_is_shown_with_description_version_metadata_and_schemas(page: Page) -> None:
    await open_skill(page, "everything")
    about = page.locator("#main .about")
    await expect(about).to_contain_text("Take everything a form can show.")
    for fact in ("2.1.0", "pictures", "0.25"):
        await expect(about).to_contain_text(fact)
    await page.get_by_text("Input schema").click()
    await expect(page.locator("#main .source[open] pre")).to_contain_text('"maximum": 4096')
    await expect(page.get_by_text("Event step")).to_be_visible()


async def test_fields_stand_in_the_order_of_their_author(page: Page) -> None:
    await open_skill(page, "everything")
    paths = await page.locator("#main .fields > [data-path]").evaluate_all("nodes => nodes.map(n => n.dataset.path)")
    assert paths[:5] == ["$.title", "$.size", "$.scale", "$.colour", "$.note"]


async def test_skills_are_found_by_name(page: Page) -> None:
    await page.fill("#find", "gat")
    await expect(page.locator("#skills [data-skill]")).to_have_count(1)
    await page.fill("#find", "no such")
    await expect(page.locator("#skills")).to_contain_text("No skills match.")


# ---------------------------------------------------------------------------------------------------- forms


async def test_what_is_typed_into_a_form_arrives_as_it_was_meant(page: Page, bench: Bench) -> None:
    await open_skill(page, "everything")
    await at(page, "$.title").locator("input").fill("A <b>poster</b>")
    await at(page, "$.size.width").locator("input").fill("640")
    await at(page, "$.size.height").locator("input").fill("480")
    await at(page, "$.scale").locator("input").fill("1.5e-3")
    await at(page, "$.colour").locator("select").select_option(label="green")
    await at(page, "$.note").locator("textarea").fill("two\nlines")
    await at(page, "$.glossy").locator("input").check()
    await at(page, "$.framed").locator("select").select_option(label="no")
    for index, tag in enumerate(("a", "b", "c")):
        await at(page, "$.tags").get_by_role("button", name="Add item").click()
        await at(page, f"$.tags[{index}]").locator("textarea").fill(tag)
    await at(page, "$.tags").get_by_role("button", name="Remove item 2").click()
    await at(page, "$.sizes").get_by_role("button", name="Add item").click()
    await at(page, "$.sizes[0].width").locator("input").fill("7")
    await page.get_by_role("button", name="Add border").click()
    await at(page, "$.border.width").locator("input").fill("1")
    await at(page, "$.prices").get_by_role("button", name="Add entry").click()
    await at(page, "$.prices").get_by_label("Name").fill("oak")
    await at(page, "$.prices").locator("input").nth(1).fill("2.5")
    await at(page, "$.extra").locator("textarea").fill('{"deep": [1, null]}')
    await at(page, "$.either").locator("select").select_option(label="string")
    await at(page, "$.either").locator("textarea").fill("7")
    await run(page)
    await ran(page)
    assert bench.latest("everything").params == {
        "title": "A <b>poster</b>",
        "size": {"width": 640, "height": 480},
        "scale": 0.0015,
        "colour": "green",
        "note": "two\nlines",
        "copies": 3,
        "glossy": True,
        "framed": False,
        "tags": ["a", "c"],
        "sizes": [{"width": 7, "height": 10}],
        "border": {"width": 1, "height": 10},
        "prices": {"oak": 2.5},
        "extra": {"deep": [1, None]},
        "either": "7",
    }


async def fill_required(page: Page) -> None:
    await open_skill(page, "everything")
    await at(page, "$.title").locator("input").fill("Poster")
    await at(page, "$.size.width").locator("input").fill("640")
    await at(page, "$.scale").locator("input").fill("2")
    await at(page, "$.colour").locator("select").select_option(label="red")


async def test_empty_fields_are_left_out(page: Page, bench: Bench) -> None:
    await fill_required(page)
    await run(page)
    await ran(page)
    params = bench.latest("everything").params
    assert not {"note", "framed", "border"} & params.keys()
    assert params["copies"] == 3


async def test_a_form_does_not_send_what_breaks_a_constraint(page: Page, bench: Bench) -> None:
    await fill_required(page)
    before = len(bench.orchestrator.jobs)
    for path, wrong, right in (("$.title", "", "Poster"), ("$.size.width", "5000", "5"), ("$.copies", "many", "2")):
        control = at(page, path).locator("input")
        await control.fill(wrong)
        await run(page)
        await expect(control).to_be_focused()
        assert not await control.evaluate("control => control.checkValidity()")
        await control.fill(right)
    assert len(bench.orchestrator.jobs) == before
    await run(page)
    await ran(page)


async def test_what_only_the_schema_knows_is_shown_beside_the_field(page: Page, bench: Bench) -> None:
    await fill_required(page)
    before = len(bench.orchestrator.jobs)
    await page.get_by_role("button", name="Edit as JSON").click()
    code = page.locator("#main textarea.code")
    await code.fill((await code.input_value()).replace('"scale": 2', '"scale": "two"'))
    await page.get_by_role("button", name="Edit as form").click()
    await page.locator("#main form").evaluate("form => form.reportValidity = () => true")  # as if a form knew nothing
    await run(page)
    await expect(at(page, "$.scale").locator(".problem")).to_contain_text("expected number, got string")
    await expect(at(page, "$.scale").locator("input")).to_be_focused()
    assert len(bench.orchestrator.jobs) == before


async def test_params_as_json_are_sent_as_they_were_typed(page: Page, bench: Bench) -> None:
    await open_skill(page, "fail")
    await page.get_by_role("button", name="Edit as JSON").click()
    code = page.locator("#main textarea.code")
    await code.fill('{"kind": ')
    await run(page)
    assert "No JSON" in await code.evaluate("code => code.validationMessage")
    await page.get_by_text("Options").click()
    await page.get_by_label("Check params before").uncheck()
    await code.fill('{"kind": "odd", "secret": 9007199254740993}')
    await run(page)
    await ran(page, "failed")
    assert bench.latest("fail").params == {"kind": "odd", "secret": 9007199254740993}
    await expect(page.locator(".details .error")).to_contain_text("INVALID_INPUT_ERROR")
    await expect(page.locator(".details")).to_contain_text("9007199254740993")


async def test_a_skill_that_takes_anything_is_given_json(page: Page, bench: Bench) -> None:
    await open_skill(page, "free")
    code = page.locator("#main textarea.code")
    await expect(code).to_have_value("{}")
    await code.fill('{"any": [{"thing": null}]}')
    await run(page)
    await ran(page)
    assert bench.latest("free").params == {"any": [{"thing": None}]}


async def test_a_skill_without_params_says_so(page: Page) -> None:
    await open_skill(page, "zero")
    await expect(page.locator("#main form")).to_contain_text("This skill takes no params.")
    await run(page)
    await ran(page)


async def test_references_alternatives_and_parts_of_a_schema_become_fields(page: Page, bench: Bench) -> None:
    await open_skill(page, "written_by_hand")
    await at(page, "$.a").locator("input").fill("5")
    alternatives = page.locator("#main fieldset[data-path='$.b']").first
    await alternatives.get_by_label("Kind of b").select_option(label="array")
    await alternatives.get_by_role("button", name="Add item").click()
    await at(page, "$.b[0]").locator("input").fill("7")
    await run(page)
    await ran(page)
    assert bench.latest("written_by_hand").params == {"a": 5, "b": [7]}
    await page.get_by_role("button", name="Reset").click()
    await page.get_by_role("button", name="Edit and run").click()
    await expect(at(page, "$.b[0]").locator("input")).to_have_value("7")


async def test_priority_and_deadline_go_with_a_task(page: Page, bench: Bench) -> None:
    await open_skill(page, "table")
    await page.get_by_text("Options").click()
    await page.get_by_label("Priority").fill("2.5")
    await page.get_by_label("Deadline").fill("600")
    await run(page)
    await ran(page)
    job = bench.latest("table")
    assert job.priority == 2.5
    assert job.deadline is not None
    assert 500 < job.deadline - job.submitted_at < 700


INSIDE = """control => {
    const [own, form] = [control, control.form].map(each => each.getBoundingClientRect());
    return own.left >= form.left && own.right <= form.right;
}"""


async def test_a_file_is_uploaded_and_its_copy_is_shown_as_a_picture(page: Page, bench: Bench, tmp_path: Path) -> None:
    picture = tmp_path / "a picture.png"
    picture.write_bytes(png(40, 30))
    await open_skill(page, "copy")
    async with page.expect_file_chooser() as chooser:
        await at(page, "$.source").get_by_role("button", name="Upload").click()
    await (await chooser.value).set_files(picture)
    await expect(at(page, "$.source")).to_contain_text("Uploaded a picture.png")
    assert await at(page, "$.source").locator("input[type=text]").evaluate(INSIDE)
    await run(page)
    await ran(page)
    assert (bench.latest("copy").result or {})["size"] == picture.stat().st_size
    image = page.locator(".gallery img")
    await expect(image).to_be_visible()
    await expect(image).to_have_js_property("naturalWidth", 40)
    async with page.expect_download() as download:
        await page.locator(".outcome").get_by_text("download", exact=True).click()
    await (await download.value).save_as(tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == picture.read_bytes()


# ---------------------------------------------------------------------------------------------------- tasks


async def begin_gated(page: Page, gate: str) -> None:
    await open_skill(page, "gated")
    await at(page, "$.gate").locator("textarea").fill(gate)
    await run(page)
    await ran(page, "running")


async def test_a_running_task_shows_progress_events_and_logs_as_they_come(page: Page, bench: Bench) -> None:
    await begin_gated(page, "live")
    details = page.locator(".details")
    await expect(details).to_contain_text("half of the way")
    assert await details.locator("progress").evaluate("bar => bar.value") == 0.5
    await expect(details.locator(".events")).to_contain_text("<b>foot</b>")
    await expect(details.locator(".logs")).to_contain_text("gate live is closed")
    row = page.locator(".task[aria-current]")
    await expect(row).to_contain_text("50 % half of the way")
    bench.gates.open("live")
    await ran(page)
    await expect(details.locator(".outcome")).to_contain_text("through")
    await expect(details.locator("[data-fact=duration]")).to_contain_text("s")
    await expect(row).to_contain_text("done")


async def test_a_running_task_shows_about_how_long_it_still_takes(page: Page, bench: Bench) -> None:
    await open_skill(page, "render")
    await at(page, "$.gate").locator("textarea").fill("frames")
    await run(page)
    left = page.locator(".details [data-fact=left]")
    row = page.locator(".task[aria-current] .time")
    await expect(left).to_have_text(re.compile(r"^about (\d+ s|\d+ min \d+ s)$"))
    await expect(row).to_have_text(re.compile(r" s · about .* left$"))
    bench.gates.open("frames")
    await ran(page)
    await expect(left).to_have_count(0)
    await expect(row).not_to_contain_text("left")


async def test_a_stream_is_shown_joined_as_it_grows_with_its_pace_and_its_chunks_folded(
    page: Page, bench: Bench
) -> None:
    await open_skill(page, "speak")
    await at(page, "$.gate").locator("textarea").fill("speech")
    await run(page)
    stream = page.locator(".details pre.stream")
    await expect(stream).to_have_text("to be <b>or</b> ")
    await expect(page.locator(".details .badge.running")).to_be_visible()
    bench.gates.open("speech")
    await expect(stream).to_have_text("to be <b>or</b> not")
    await ran(page)
    await expect(page.locator(".details")).to_contain_text("first chunk after")
    await expect(page.locator(".details")).to_contain_text("items/s")
    chunk = page.locator(".details li").get_by_text("not", exact=True)
    await expect(chunk).to_be_hidden()
    await page.get_by_text("Chunks as received").click()
    await expect(chunk).to_be_visible()


async def test_tasks_of_others_appear_too(page: Page, bench: Bench) -> None:
    await bench.harness.run("table")
    await open_part(page, "Runs")
    row = page.locator(f"[data-job='{bench.latest('table').job_id}']")
    await expect(row).to_contain_text("done")
    await row.click()
    await ran(page)
    await expect(page.locator(".details .outcome table")).to_be_visible()


@pytest.mark.parametrize("way", ["click", "key"])
async def test_a_task_is_cancelled(page: Page, bench: Bench, way: str) -> None:
    await begin_gated(page, f"cancelled-{way}")
    if way == "click":
        await page.get_by_role("button", name="Cancel").click()
    else:
        await page.locator(".details").focus()
        await page.keyboard.press("c")
    await ran(page, "cancelled")
    await expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
    assert bench.latest("gated").state == "cancelled"


@pytest.mark.parametrize("way", ["click", "key"])
async def test_a_task_is_run_again(page: Page, bench: Bench, way: str) -> None:
    await open_skill(page, "table")
    await run(page)
    await ran(page)
    first = bench.latest("table")
    if way == "click":
        await page.get_by_role("button", name="Run again").click()
    else:
        await page.locator(".details").focus()
        await page.keyboard.press("r")
    await bench.orchestrator.wait_for(lambda: bench.latest("table") is not first)
    again = bench.latest("table")
    await expect(page.locator("[data-fact=job]")).to_have_text(again.job_id)
    await ran(page)
    assert again.params == first.params


async def test_the_params_of_a_task_come_back_into_the_form(page: Page) -> None:
    await fill_required(page)
    await at(page, "$.tags").get_by_role("button", name="Add item").click()
    await at(page, "$.tags[0]").locator("textarea").fill("kept")
    await run(page)
    await ran(page)
    await page.get_by_role("button", name="Reset").click()
    await expect(at(page, "$.title").locator("input")).to_have_value("")
    await page.get_by_role("button", name="Edit and run").click()
    await expect(at(page, "$.title").locator("input")).to_have_value("Poster")
    await expect(at(page, "$.tags[0]").locator("textarea")).to_have_value("kept")


async def test_an_error_is_shown_with_code_path_and_details(page: Page) -> None:
    await open_skill(page, "fail")
    await at(page, "$.kind").locator("select").select_option(label="input")
    await run(page)
    await ran(page, "failed")
    error = page.locator(".details .error")
    for text in ("INVALID_INPUT_ERROR", "$.kind", "params.kind: that is no good", "other"):
        await expect(error).to_contain_text(text)


async def test_every_attempt_of_a_task_is_listed(page: Page, bench: Bench) -> None:
    await open_skill(page, "fail")
    await at(page, "$.kind").locator("select").select_option(label="transient")
    await run(page)
    await ran(page, "quarantined")
    assert bench.latest("fail").attempts == 2
    await expect(page.locator("[data-fact=attempts]")).to_have_text("2")
    await expect(page.locator(".details .timeline li", has_text="TRANSIENT_ERROR: transient trouble")).to_have_count(2)


async def test_data_are_shown_as_tables_pictures_and_folded_json_and_stay_text(page: Page) -> None:
    await open_skill(page, "table")
    await run(page)
    await ran(page)
    outcome = page.locator(".details .outcome")
    await expect(outcome.locator("table th")).to_have_text(["name", "price"])
    await expect(outcome.locator("table td").first).to_have_text("<img src=x onerror=alert(1)>")
    await expect(outcome.locator("td.number").nth(1)).to_have_text("20")
    await expect(outcome).to_contain_text("9007199254740993")
    await expect(outcome.locator(".gallery img")).to_have_js_property("naturalWidth", 40)
    await expect(outcome.get_by_text("bottom")).to_be_hidden()
    for summary in ("two", "three", "1 item"):
        await outcome.locator("summary").get_by_text(summary, exact=True).click()
    await expect(outcome.get_by_text("bottom")).to_be_visible()
    await outcome.get_by_text("Result as JSON").click()
    await expect(outcome.locator(".source pre")).to_contain_text('"big": 9007199254740993')


async def test_hundreds_of_tasks_do_not_hold_up_the_page(page: Page, bench: Bench) -> None:
    jobs = [bench.orchestrator.submit("table") for _ in range(250)]
    await asyncio.gather(*(job.done() for job in jobs))
    await expect(page.locator(f"[data-job='{jobs[-1].job_id}']")).to_contain_text("done")
    assert await page.locator(".task").count() <= 200


# ---------------------------------------------------------------------------------------------------- the worker


async def test_slots_link_and_heartbeats_of_the_worker_are_shown(page: Page, bench: Bench) -> None:
    worker = page.locator("#worker")
    await expect(worker).to_contain_text("test-worker")
    await expect(worker).to_contain_text("by WebSocket")
    used = worker.locator(".slots .used")
    await expect(used).to_have_count(0)
    await begin_gated(page, "slots")
    await expect(worker).to_contain_text("1 of 4 used")
    await expect(used).to_have_count(1)
    bench.gates.open("slots")
    await expect(used).to_have_count(0)
    beats = worker.locator("dt", has_text="heartbeats").locator("xpath=following-sibling::dd[1]")
    before = await beats.inner_text()
    await expect(beats).not_to_have_text(before)
    assert int(await beats.inner_text()) > int(before)


async def test_a_lost_reply_is_tried_from_the_menu(page: Page, bench: Bench) -> None:
    await open_part(page, "Faults")
    await page.get_by_label("Fault", exact=True).select_option(label="Lost reply to a result")
    await page.get_by_role("button", name="Inject").click()
    await expect(page.locator("ul.faults")).to_contain_text("next result: processed, reply lost")
    await open_part(page, "Skills")
    await open_skill(page, "table")
    await run(page)
    await ran(page)
    job = bench.latest("table")
    await bench.orchestrator.wait_for(lambda: len(job.results_received) == 2)
    assert [received.status for received in job.results_received] == ["accepted", "ignored"]
    await expect(page.locator("#faults")).to_contain_text("No faults are pending.")
    await expect(page.locator(".calls li", has_text="drop_after")).not_to_have_count(0)
    await expect(page.locator(".details")).to_contain_text("ignored: job_already_terminated")


async def test_a_custom_fault_is_composed_and_cleared(page: Page, bench: Bench) -> None:
    await open_part(page, "Faults")
    await page.get_by_label("Fault", exact=True).select_option(label="Something else…")
    await page.get_by_label("Call", exact=True).select_option("result")
    await page.get_by_label("What happens").select_option("status")
    await page.get_by_label("Status").fill("429")
    await page.get_by_label("Retry-After").fill("0.2")
    await page.get_by_label("How many calls").fill("2")
    await page.get_by_role("button", name="Inject").click()
    await expect(page.locator("ul.faults")).to_contain_text("next 2 results: answer 429, Retry-After 0.2")
    await open_part(page, "Skills")
    await open_skill(page, "table")
    await run(page)
    await ran(page)
    assert len(bench.latest("table").results_received) == 1
    await expect(page.locator("#faults")).to_contain_text("No faults are pending.")
    await expect(page.locator(".calls li", has_text="429")).not_to_have_count(0)
    await open_part(page, "Faults")
    await page.get_by_role("button", name="Inject").click()
    await page.get_by_role("button", name="Clear faults").click()
    await expect(page.locator("#faults")).to_contain_text("No faults are pending.")


async def test_a_restart_of_the_orchestrator_brings_the_worker_to_register_again(page: Page, bench: Bench) -> None:
    count = bench.orchestrator.workers["test-worker"].registered_count
    await open_part(page, "Faults")
    await page.get_by_role("button", name="Restart the orchestrator").click()
    await expect(page.locator("#worker")).to_contain_text(f"{count + 1} times")
    await expect(page.locator("#worker")).to_contain_text("by WebSocket")


# ---------------------------------------------------------------------------------------------------- keys and looks


async def test_everything_can_be_done_with_keys(page: Page, bench: Bench) -> None:
    await page.keyboard.press("/")
    await page.keyboard.type("gated")
    await page.keyboard.press("Enter")
    await expect(page.locator("#main h2")).to_have_text("gated")
    await page.keyboard.type("keys")
    await page.keyboard.press("Control+Enter")
    await ran(page, "running")
    bench.gates.open("keys")
    await ran(page)
    assert bench.latest("gated").params == {"gate": "keys"}
    second = await bench.harness.run("table")
    assert second.ok
    await page.keyboard.press("Escape")
    await page.keyboard.press("4")
    await expect(page.locator(f"[data-job='{bench.latest('table').job_id}']")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("k")
    await expect(page.locator(".details h2")).to_have_text("table")
    await page.keyboard.press("j")
    await expect(page.locator(".details h2")).to_have_text("gated")
    await page.keyboard.press("2")
    await expect(at(page, "$.gate").locator("textarea")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.locator("dialog")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.locator("dialog")).to_be_hidden()


async def test_arrows_walk_through_the_skills(page: Page) -> None:
    await page.focus("#find")
    await page.keyboard.press("ArrowDown")
    await expect(page.locator("[data-skill=everything]")).to_be_focused()
    for _ in range(2):  # past gated
        await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("Enter")
    await expect(page.locator("#main h2")).to_have_text("gated")
    await expect(at(page, "$.gate").locator("textarea")).to_be_focused()
    await expect(at(page, "$.gate").locator("textarea")).to_have_value("")


NAMELESS = """() => [...document.querySelectorAll('button, input, select, textarea')]
    .filter(n => n.offsetParent && !n.classList.contains('picker'))
    .filter(n => !(n.labels?.length || n.ariaLabel || (n.tagName === 'BUTTON' && n.textContent.trim())))
    .map(n => n.outerHTML)"""


async def test_every_control_has_a_name_for_screen_readers(page: Page) -> None:
    await fill_required(page)
    for path in ("$.tags", "$.sizes"):
        await at(page, path).get_by_role("button", name="Add item").click()
    await at(page, "$.prices").get_by_role("button", name="Add entry").click()
    assert await page.evaluate(NAMELESS) == []
    await open_part(page, "Faults")
    await page.get_by_label("Fault", exact=True).select_option(label="Something else…")
    assert await page.evaluate(NAMELESS) == []
    await open_part(page, "Runs")
    assert await page.evaluate(NAMELESS) == []


BACKGROUND = "getComputedStyle(document.documentElement).backgroundColor"


async def test_colors_follow_the_system_or_the_choice_that_is_remembered(bench: Bench) -> None:
    async with opened(bench.browser, bench.orchestrator.url, color_scheme="dark") as page:
        dark = await page.evaluate(BACKGROUND)
        await page.emulate_media(color_scheme="light")
        light = await page.evaluate(BACKGROUND)
        assert dark != light
        button = page.get_by_role("button", name="Colors")
        await button.click()
        await button.click()
        assert await page.evaluate(BACKGROUND) == dark
        await page.reload()
        await expect(button).to_have_text("Colors: Dark")
        assert await page.evaluate(BACKGROUND) == dark


async def test_a_phone_shows_one_part_at_a_time_and_nothing_sticks_out(bench: Bench) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    async with opened(bench.browser, bench.orchestrator.url, **phone) as page:

        async def check(part: str) -> None:
            await expect(page.locator("#parts > :visible")).to_have_count(1)
            await expect(page.locator(f"#parts > [data-part={part}]")).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360

        await check("skills")
        await page.tap("[data-skill=table]")
        await check("run")
        await page.get_by_role("button", name="Run", exact=True).tap()
        await ran(page)
        await check("output")
        await page.get_by_role("button", name="All runs").tap()
        await check("runs")
        await expect(page.locator(".task").first).to_be_visible()
        await page.locator(".task").first.tap()
        await check("output")
        parts = {"Worker": "worker", "Skills": "skills", "Form": "run", "Output": "output", "Runs": "runs"}
        for tab, part in {**parts, "Faults": "faults"}.items():
            await page.locator("#tabs").get_by_role("button", name=tab).tap()
            await check(part)


async def test_a_page_reports_a_lost_connection_and_comes_back(bench: Bench) -> None:
    orchestrator = EmbeddedOrchestrator(console=Console())
    async with orchestrator, opened(bench.browser, orchestrator.url) as page:
        await expect(page.locator("#link")).to_have_text("no worker is registered")
        await orchestrator.stop()
        await expect(page.locator("#link")).to_contain_text("connection lost")
        await orchestrator.start()
        await expect(page.locator("#link")).to_have_text("no worker is registered")


async def test_what_was_typed_stays_when_the_skill_is_edited(bench: Bench) -> None:
    def skill(*fields: str) -> tuple[SkillInfo, ...]:
        schema = {"type": "object", "properties": {name: {"type": "string", "maxLength": 9} for name in fields}}
        return (SkillInfo(name="edited", type="edited", input_schema=schema),)

    async with EmbeddedOrchestrator(console=Console()) as orchestrator, aiohttp.ClientSession() as session:
        worker = WorkerClient(orchestrator, session, skills=skill("first"))
        await worker.register()
        async with opened(bench.browser, orchestrator.url) as page:
            await open_skill(page, "edited")
            await at(page, "$.first").locator("input").fill("typed")
            worker.skills = skill("first", "second")
            await worker.register(skills_hash="other")
            await expect(at(page, "$.second")).to_be_visible()
            await expect(at(page, "$.first").locator("input")).to_have_value("typed")


async def test_the_address_of_a_skill_opens_it(bench: Bench) -> None:
    async with opened(bench.browser, bench.orchestrator.url) as page:
        await open_skill(page, "gated")
        await page.reload()
        await expect(page.locator("#main h2")).to_have_text("gated")
