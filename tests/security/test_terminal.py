"""What others say reaches terminals and logs as text: it moves no cursor, sets no title, writes no clipboard."""

import asyncio
import io
import json
import logging
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from avtomatika_worker.cli import terminal
from avtomatika_worker.cli.dev_log import DevLogFormatter
from avtomatika_worker.cli.top import view
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault
from avtomatika_worker.observability.log_formats import JsonLogFormatter, TextLogFormatter
from avtomatika_worker.observability.printable import printable, printable_json

EVIL = "x\x1b[2J\x1b]0;PWNED\x07\x1b]52;c;cm0K\x07\x9b31m\u202eevil\u2066\u2028y\x08\x7f\u200f\u061c"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
STYLE = re.compile("\x1b\\[[0-9;]*m|\r\x1b\\[2K|\x1b\\[1A\x1b\\[2K|\x1b\\[\\?25[lh]|(?<=[\nmKhl])\r")
"""Colors, and what replaces a line of progress."""
TEXTS = st.text() | st.text(st.sampled_from(EVIL))


@given(TEXTS)
def test_a_printable_text_holds_nothing_that_commands_a_terminal(text):
    shown = printable(text)
    assert RAW.search(shown) is None
    shown.encode()  # lone surrogates are escaped, too
    if text.isprintable():
        assert shown == text


@given(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS)))
def test_printable_json_is_the_same_value(value):
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert RAW.search(shown) is None


@given(TEXTS, st.booleans())
def test_what_rich_prints_holds_nothing_but_its_own_styles(text, colored):
    out = io.StringIO()
    made = terminal.console(file=out, force_terminal=colored, width=80, highlight=False)
    made.print(Text.assemble((text, "red"), "tail"))
    made.print_json(json.dumps({"a": text}, ensure_ascii=False))
    left = STYLE.sub("", out.getvalue()) if colored else out.getvalue()
    assert RAW.search(left) is None


@given(st.text(st.sampled_from("[]/=:b linkod")).map(lambda each: each.replace("\n", " ")))
def test_what_rich_prints_is_shown_as_it_is_wherever_it_stands(text):
    out = io.StringIO()
    made = terminal.console(file=out, force_terminal=True, width=1000, highlight=False, color_system="standard")
    table = Table.grid()
    table.add_row("<" + text + ">")
    made.print(table)
    made.print("<" + text + ">")
    assert out.getvalue().splitlines() == [f"<{text}>"] * 2


@pytest.mark.parametrize("job_id", ["[/b]", "[bold]", "[link=x]", ":bomb:"])
def test_top_shows_a_jobs_id_as_it_is(job_id):
    out = io.StringIO()
    task = {"skill": job_id, "job_id": job_id, "seconds": 1}
    terminal.console(file=out, width=100, highlight=False).print(view({"worker_id": job_id, "tasks": [task]}))
    assert out.getvalue().count(job_id) == 3


def logged(formatter, text):
    """Return what is written of a record in which everything is ``text``."""
    record = logging.LogRecord(text, logging.ERROR, "f", 1, "%s", (text,), None)
    record.task_id, record.job_id = text, text
    try:
        raise ValueError(text)
    except ValueError:
        record.exc_info = sys.exc_info()
    return formatter.format(record)


@pytest.mark.parametrize("formatter", [TextLogFormatter(), JsonLogFormatter()], ids=["text", "json"])
def test_no_log_holds_marks_that_turn_text_around(formatter):
    assert RAW.search(logged(formatter, EVIL)) is None


@given(st.text(), st.sampled_from(["task_failed", "task_finished", "other"]), st.booleans())
def test_only_our_own_lines_of_dev_start_at_the_margin_whatever_a_task_is_called(text, action, failed):
    record = logging.LogRecord("n", logging.WARNING, "f", 1, "%s", (text,), None)
    vars(record).update(task_id=text, job_id=text, action=action, skill=text, status=text, seconds=1.0)
    if failed:
        record.code, record.exc_text = text, text
    _, *rest = DevLogFormatter().format(record).splitlines()
    assert all(line.startswith("    ") for line in rest)


# ------------------------------------------------------------------------------------------- the commands

APP = f"""
from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.errors import PermanentError
worker = Worker()

@worker.skill(events={{"alert": {{"type": "object"}}}})
async def fine(ctx: TaskContext) -> dict:
    ctx.send_progress(0.5, {EVIL!r})
    await ctx.send_event("alert", {{"text": {EVIL!r}}})
    return {{"text": {EVIL!r}}}

@worker.skill
async def bad(ctx: TaskContext) -> dict:
    raise PermanentError({EVIL!r}, {{"where": {EVIL!r}}})
"""


async def command(directory, *arguments, **environment):
    """Run a command with a terminal's colors; return what it wrote to both streams."""
    (directory / "esc.py").write_text(APP, "utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "avtomatika_worker.cli", *arguments),
        cwd=directory,
        env={
            "PATH": "",
            "HOME": str(directory),
            "XDG_STATE_HOME": str(directory),
            "TASK_FILES_DIR": str(directory / "files"),
            "PYTHONUTF8": "1",
            "FORCE_COLOR": "1",
            "TERM": "xterm-256color",
            "COLUMNS": "200",
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return out.decode()


@pytest.mark.parametrize("arguments", [("fine",), ("bad",), ("fine", "--json"), ("bad", "--json")], ids=" ".join)
async def test_call_shows_what_a_skill_says_and_is_not_commanded_by_it(tmp_path, arguments):
    shown = await command(tmp_path, "call", "--app", "esc:worker", *arguments)
    assert "PWNED" in shown
    assert RAW.search(STYLE.sub("", shown)) is None


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["people", "json"])
async def test_doctor_is_not_commanded_by_an_orchestrator(tmp_path, options):
    async with EmbeddedOrchestrator() as orchestrator:
        body = json.dumps({"status": "registered", "version": "9" + EVIL}).encode()
        orchestrator.inject(Fault("register", "body", times=None, body=body))
        shown = await command(
            tmp_path, "doctor", *options, ORCHESTRATOR_URL=orchestrator.url, WORKER_TOKEN="dev-token", WORKER_PORT="0"
        )
    assert "PWNED" in shown
    assert RAW.search(STYLE.sub("", shown)) is None


async def test_an_error_about_the_environment_is_not_commanded_by_it(tmp_path):
    for value in ("\x1b[2Jx", "\u202ehttp://x"):
        shown = await command(tmp_path, "call", "--app", "esc:worker", "fine", WORKER_TYPE="t", LOG_LEVEL=value)
        assert "LOG_LEVEL" in shown
        assert RAW.search(STYLE.sub("", shown)) is None
