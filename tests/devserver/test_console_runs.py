"""The console's addresses, its list of runs, and what its forms keep, in a browser."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from avtomatika_worker.devserver import Console, EmbeddedOrchestrator, JobRecord, TaskLogs
from avtomatika_worker.devserver.console.shown_program import Program
from avtomatika_worker.observability.log_context import log_context
from avtomatika_worker.protocol.messages import SkillInfo
from devserver.browser import browser, opened
from devserver.support import ECHO, WorkerClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

CIRCLE = {"type": "object", "title": "Circle", "properties": {"radius": {"type": "number"}}, "required": ["radius"]}
SCHEMA = {
    "type": "object",
    "properties": {
        "blank": {"type": "string", "minLength": 0},
        "name": {"type": "string", "description": "Whom to greet"},
        "shape": {"anyOf": [CIRCLE, {"type": "object", "properties": {"kind": {"const": "box"}}}, {"type": "integer"}]},
        "times": {"type": "integer", "minimum": 2, "maximum": 9},
    },
    "required": ["name", "blank", "times", "shape"],
}
GREET = SkillInfo(name="greet", type="greet", input_schema=SCHEMA)
KEPT = 40


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


class Bench:
    """An orchestrator with the console, and a worker that does what a test says."""

    def __init__(self, orchestrator: EmbeddedOrchestrator, worker: WorkerClient, logs: TaskLogs) -> None:
        self.orchestrator = orchestrator
        self.worker = worker
        self.logs = logs

    async def success(self, params: dict[str, Any] | None = None, skill: str = "echo") -> JobRecord:
        job = self.orchestrator.submit(skill, params or {})
        await self.worker.result(await self.worker.task(), data={"y": 1})
        return job

    async def failure(self, code: str) -> JobRecord:
        job = self.orchestrator.submit("echo", {})
        await self.worker.failure(await self.worker.task(), code)
        return job


@pytest_asyncio.fixture(loop_scope="module")
async def bench() -> AsyncIterator[Bench]:
    logs = TaskLogs()
    console = Console(logs=logs)
    async with (
        EmbeddedOrchestrator(console=console, history=KEPT, max_attempts=2, poll_time=0.05) as orchestrator,
        aiohttp.ClientSession() as session,
    ):
        worker = WorkerClient(orchestrator, session, skills=(ECHO, GREET))
        await worker.register()
        yield Bench(orchestrator, worker, logs)


@pytest_asyncio.fixture(loop_scope="module")
async def page(bench: Bench, chromium: Browser) -> AsyncIterator[Page]:
    async with opened(chromium, bench.orchestrator.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        await expect(page.locator("#link")).to_contain_text("protocol")
        yield page


def at(page: Page, path: str) -> Locator:
    return page.locator(f"#main [data-path='{path}']")


async def go(page: Page, address: str) -> None:
    await page.evaluate("address => { location.hash = address; }", address)


async def open_runs(page: Page) -> None:
    await page.locator("#tabs").get_by_role("button", name="Runs").click()


# ---------------------------------------------------------------------------------------------------- addresses


async def test_the_address_of_a_run_opens_it_at_its_tab(page: Page, bench: Bench) -> None:
    job = await bench.success({"text": "hello"})
    await go(page, f"#/run/{job.job_id}/params")
    await expect(page.get_by_role("tab", name="Params")).to_have_attribute("aria-selected", "true")
    await expect(page.get_by_role("tabpanel")).to_contain_text("hello")
    await page.reload()
    await expect(page.get_by_role("tab", name="Params")).to_have_attribute("aria-selected", "true")
    await expect(page.locator("#main h2")).to_have_text("echo")  # the form is that of its skill
    await page.get_by_role("tab", name="Logs").click()
    await expect(page.get_by_role("tabpanel")).to_contain_text("Nothing was logged.")
    assert page.url.endswith(f"#/run/{job.job_id}/logs")


async def test_back_returns_to_the_run_before(page: Page, bench: Bench) -> None:
    first, second = await bench.success(), await bench.success()
    await open_runs(page)
    for job in (first, second):
        await page.locator(f"[data-job='{job.job_id}']").click()
        await expect(page.locator("[data-fact=job]")).to_have_text(job.job_id)
    await page.go_back()
    await expect(page.locator("[data-fact=job]")).to_have_text(first.job_id)


async def test_the_address_of_an_unknown_run_says_so(page: Page) -> None:
    await go(page, "#/run/none")
    await expect(page.locator(".details")).to_contain_text("no such job")
    await go(page, "#/run/%E0%A4%A")
    await expect(page.locator(".details")).to_contain_text("no such job")


async def test_views_have_addresses(page: Page) -> None:
    for name in ("runs", "worker", "faults"):
        await go(page, f"#/{name}")
        await expect(page.locator(f"#{name}")).to_be_visible()
        await page.reload()
        await expect(page.locator(f"#{name}")).to_be_visible()


# ---------------------------------------------------------------------------------------------------- failures


async def test_a_failure_says_whether_it_is_retried_and_lists_its_attempts(page: Page, bench: Bench) -> None:
    job = await bench.failure("TRANSIENT_ERROR")
    await go(page, f"#/run/{job.job_id}")
    error = page.locator(".details .error")
    await expect(error).to_contain_text("TRANSIENT_ERROR")
    await expect(error).to_contain_text("Retrying: attempt 2 is queued.")
    await bench.worker.failure(await bench.worker.task(), "TRANSIENT_ERROR")
    await expect(error).to_contain_text("Given up after 2 attempts.")
    steps = page.locator(".timeline li")
    await expect(steps).to_contain_text(["submitted", "attempt 1", "failure", "attempt 2", "failure", "quarantined"])


async def test_a_failure_shows_the_line_of_the_source_and_its_traceback(page: Page, bench: Bench) -> None:
    logger = logging.Logger("failures", logging.DEBUG)
    logger.addHandler(bench.logs)
    job = bench.orchestrator.submit("echo", {})
    task = await bench.worker.task()
    with log_context(job_id=job.job_id, task_id=task["task_id"]):
        try:
            raise RuntimeError("<b>boom</b>")
        except RuntimeError:
            logger.exception("it failed")
    await bench.worker.failure(task, "PERMANENT_ERROR")
    await go(page, f"#/run/{job.job_id}")
    error = page.locator(".details .error")
    await expect(error.locator(".at")).to_contain_text("test_console_runs.py")
    await expect(error.locator(".at pre")).to_have_text('raise RuntimeError("<b>boom</b>")')
    await expect(error.locator(".traceback pre")).to_be_visible()
    await page.get_by_role("tab", name="Logs").click()
    await expect(page.locator(".logs .frames")).to_contain_text("test_console_runs.py")


async def test_a_program_that_does_not_start_lies_over_the_page_until_it_does(chromium: Browser) -> None:
    program = Program({})
    async with (
        EmbeddedOrchestrator(console=Console(program=program)) as orchestrator,
        opened(chromium, orchestrator.url) as page,
    ):
        broken = page.locator("#broken")
        await expect(page.locator("#link")).to_have_text("no worker is registered")
        await expect(broken).to_be_hidden()
        program.problem = "Traceback: <b>SyntaxError</b>"
        await expect(broken.locator("pre")).to_have_text("Traceback: <b>SyntaxError</b>")
        await page.reload()
        await broken.get_by_role("button", name="Show the page").click()
        await expect(broken).to_be_hidden()
        program.problem = "another"
        await expect(broken).to_contain_text("another")
        program.started({})
        await expect(broken).to_be_hidden()


# ---------------------------------------------------------------------------------------------------- the list


async def test_totals_are_true_and_forgotten_runs_do_not_come_back(page: Page, bench: Bench) -> None:
    await open_runs(page)
    jobs = [await bench.success() for _ in range(KEPT + 25)]
    await bench.failure("TRANSIENT_ERROR")
    totals = page.locator(".totals")
    await expect(totals).to_have_text(f"{KEPT + 26} runs: 1 queued, {KEPT + 25} done; the latest {KEPT + 1} are kept")
    await expect(page.locator(".row").first).to_have_attribute("aria-setsize", str(KEPT + 1))
    await page.reload()
    await expect(totals).to_contain_text(f"{KEPT + 26} runs")
    await page.locator(".runs.list").evaluate("list => { list.scrollTop = list.scrollHeight; }")
    await expect(page.locator(f"[data-job='{jobs[25].job_id}']")).to_be_in_viewport()


async def test_only_the_rows_in_view_are_built(page: Page, bench: Bench) -> None:
    for _ in range(1000):
        bench.orchestrator.submit("echo", {})
    await open_runs(page)
    await expect(page.locator(".totals")).to_have_text("1,000 runs: 1,000 queued")
    assert await page.locator(".task").count() < 50


async def test_runs_are_filtered_by_state_skill_and_text(page: Page, bench: Bench) -> None:
    await bench.success({"text": "apple"})
    await bench.success({"text": "pear"})
    greeting = await bench.success({"name": "apple"}, skill="greet")
    await open_runs(page)
    rows = page.locator(".task")
    await expect(rows).to_have_count(3)
    await page.get_by_label("Find runs").fill("APPLE")
    await expect(rows).to_have_count(2)
    await expect(page.locator(".totals")).to_contain_text("3 runs: 3 done; 2 match")
    await page.get_by_label("Skill", exact=True).select_option("greet")
    await expect(rows).to_have_count(1)
    await page.get_by_label("State").select_option("failed")
    await expect(page.locator("#runs")).to_contain_text("No runs match.")
    await page.get_by_label("State").select_option("")
    await page.get_by_label("Find runs").fill(greeting.job_id[:8])
    await expect(rows).to_have_count(1)


async def test_charts_show_runs_a_minute_durations_and_slots(page: Page, bench: Bench) -> None:
    for _ in range(3):
        await bench.success()
    await bench.failure("PERMANENT_ERROR")
    bench.orchestrator.submit("greet", {})
    await bench.worker.task()
    await go(page, "#/worker")
    charts = page.locator("#worker .charts")
    await expect(charts.get_by_role("img").first).to_have_attribute(
        "aria-label", "4 runs in 30 minutes, 1 without success; at most 4 in one"
    )
    await expect(charts).to_contain_text("1 of 2 slots in use; at most 1 in 5 minutes")
    await expect(charts.locator("tbody tr")).to_have_count(1)
    await expect(charts.locator("tbody td").nth(0)).to_have_text("echo")
    await expect(charts.locator("tbody td").nth(1)).to_have_text("4")


# ---------------------------------------------------------------------------------------------------- forms


async def fill_greeting(page: Page) -> None:
    await page.click("[data-skill=greet]")
    await at(page, "$.name").locator("textarea").fill("O'Hara \\ \u00e4 \U0001f600")
    await at(page, "$.times").locator("input").fill("3")
    await at(page, "$.shape").first.locator("select").select_option(label="Circle")
    await at(page, "$.shape.radius").locator("input").fill("2.5")


GREETING = {"name": "O'Hara \\ \u00e4 \U0001f600", "blank": "", "times": 3, "shape": {"radius": 2.5}}


async def run(page: Page) -> None:
    await page.get_by_role("button", name="Run", exact=True).click()


async def test_a_required_text_is_not_left_blank_unless_its_schema_allows_that(page: Page, bench: Bench) -> None:
    await fill_greeting(page)
    await at(page, "$.name").locator("textarea").fill("")
    await run(page)
    await expect(at(page, "$.name").locator("textarea")).to_be_focused()
    assert not bench.orchestrator.jobs
    await at(page, "$.name").locator("textarea").fill(str(GREETING["name"]))
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".details .badge")).to_have_text("queued")
    (job,) = bench.orchestrator.jobs.values()
    assert job.params == GREETING


async def test_notes_are_sentences_and_alternatives_have_names(page: Page) -> None:
    await fill_greeting(page)
    await expect(at(page, "$.name").locator(".note")).to_have_text("Whom to greet.")
    await expect(at(page, "$.times").locator(".note")).to_have_text("From 2 to 9.")
    await expect(at(page, "$.shape").first.locator("option")).to_have_text(["Circle", "box", "integer"])


async def test_drafts_are_kept_for_each_skill_until_they_are_reset(page: Page) -> None:
    await fill_greeting(page)
    await page.click("[data-skill=echo]")
    await page.locator("#main textarea.code").fill('{"half": ')
    await page.click("[data-skill=greet]")
    await expect(at(page, "$.times").locator("input")).to_have_value("3")
    await page.reload()
    await expect(at(page, "$.shape.radius").locator("input")).to_have_value("2.5")
    await page.click("[data-skill=echo]")
    await expect(page.locator("#main textarea.code")).to_have_value('{"half": ')
    await page.click("[data-skill=greet]")
    await page.get_by_role("button", name="Reset").click()
    await page.reload()
    await expect(at(page, "$.times").locator("input")).to_have_value("")


async def test_sample_values_are_accepted(page: Page) -> None:
    await page.click("[data-skill=greet]")
    await page.get_by_role("button", name="Sample values").click()
    await expect(at(page, "$.times").locator("input")).to_have_value("2")
    await run(page)
    await expect(page.locator(".details .badge")).to_have_text("queued")


async def copied(page: Page, name: str) -> str:
    await page.get_by_role("button", name=name, exact=True).click()
    await expect(page.get_by_title(f"Copy as {name}")).to_have_text("Copied")
    text: str = await page.evaluate("navigator.clipboard.readText()")
    return text


async def test_a_form_is_copied_as_a_command_a_program_and_a_test(page: Page, bench: Bench) -> None:
    await fill_greeting(page)
    command = shlex.split((await copied(page, "curl")).replace("\\\n", ""))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
    (job,) = bench.orchestrator.jobs.values()
    assert (job.skill, job.params) == ("greet", GREETING)
    bench.orchestrator.cancel(job.job_id)
    program = compile(await copied(page, "Python"), "copied", "exec")
    ran = asyncio.create_task(asyncio.to_thread(exec, program, {}))
    await bench.orchestrator.wait_for(lambda: len(bench.orchestrator.jobs) == 2)
    assert list(bench.orchestrator.jobs.values())[-1].params == GREETING
    await bench.worker.result(await bench.worker.task(), data={})
    await ran
    test = compile(await copied(page, "test"), "copied", "exec")
    assert "test_greet" in test.co_names


async def test_run_stays_in_view_below_a_long_form(bench: Bench, chromium: Browser) -> None:
    async with opened(chromium, bench.orchestrator.url, viewport={"width": 1200, "height": 420}) as page:
        await page.click("[data-skill=greet]")
        await expect(page.get_by_role("button", name="Run", exact=True)).to_be_in_viewport(ratio=1)
