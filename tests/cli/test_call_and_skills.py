"""``worker call``, ``worker skills`` and ``worker version`` as processes: what is typed, and what happens."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from avtomatika_worker.cli.skills import type_of

APP = '''
import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from avtomatika_worker import PermanentError, TaskContext, TaskFiles, Worker

worker = Worker(worker_type="test")


@dataclass
class Resize:
    """How to resize."""

    width: Annotated[int, Meta(ge=1, le=4000, description="In pixels.")]
    url: str
    mode: Literal["fit", "fill"] = "fit"


@dataclass
class Resized:
    pixels: int


@worker.skill(price=0.5, events={"alert": {"type": "object"}}, output_statuses=["needs_review"])
async def resize(params: Resize, ctx: TaskContext) -> Resized:
    """Resize a picture."""
    ctx.send_progress(0.5, "half [of it]")
    await ctx.send_event("alert", {"url": params.url})
    return Resized(params.width * 2)


@worker.skill
def refuse(why: str, ctx: TaskContext):
    raise PermanentError(why, {"metadata": ctx.metadata})


@worker.skill
async def write(text: str, files: TaskFiles):
    return {"file": await files.write("a.txt", text)}


@worker.skill
async def compose(words: int) -> AsyncIterator[str]:
    for number in range(words):
        yield f"word{number} "
        await asyncio.sleep(0.01)


@worker.skill
def points(count: int) -> Iterator[dict[str, int]]:
    for x in range(count):
        yield {"x": x}


@worker.skill
async def wait(ctx: TaskContext):
    ctx.send_progress(0.1, "begun")
    await ctx.send_event("begun")
    await asyncio.sleep(100)
'''


@pytest.fixture(autouse=True)
def project(tmp_path):
    (tmp_path / "app.py").write_text(APP, "utf-8")
    return tmp_path


def test_call_prints_events_and_the_result_as_they_come_and_no_progress_into_a_pipe(command):
    done = command("call", "--app", "app:worker", "resize", '{"width": 10, "url": "é.jpg"}')
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == ' event  alert  {"url": "é.jpg"}'
    assert re.fullmatch(r"success in \d+\.\d\d s", lines[1])
    assert json.loads("\n".join(lines[2:])) == {"pixels": 20}
    assert "\x1b" not in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_on_a_terminal_progress_is_one_line_that_is_gone_at_the_end(project):
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    arguments = ("call", "--app", "app:worker", "resize", "-p", "width=10", "-p", "url=a")
    environment = {"PATH": "", "PYTHONUTF8": "1", "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "avtomatika_worker.cli", *arguments], cwd=project, env=environment, stdout=theirs
    ) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 4096):
                written += piece
    os.close(ours)
    assert process.returncode == 0
    plain = re.sub(r"\x1b\[[\d;]*m", "", written.decode())  # without styles
    before, _, rest = plain.partition(" 50% half [of it]")
    assert before.rstrip().endswith("━"), plain
    assert "\x1b[2K" in rest[: rest.index("success in")]  # its line is cleared before the result
    assert "50%" not in rest[rest.index("success in") :]


def test_call_prints_a_stream_as_it_comes_and_not_again_as_the_result(command):
    done = command("call", "--app", "app:worker", "compose", "-p", "words=20")
    text, status = done.stdout.splitlines()
    assert text == "".join(f"word{number} " for number in range(20))
    assert re.fullmatch(r"success in \d+\.\d\d s", status)


def test_call_prints_items_a_line_each_and_json_prints_the_result_alone(command):
    lines = command("call", "--app", "app:worker", "points", "-p", "count=2").stdout.splitlines()
    assert lines[:2] == [' chunk  {"x": 0}', ' chunk  {"x": 1}']
    done = command("call", "--app", "app:worker", "points", "-p", "count=2", "--json")
    assert json.loads(done.stdout)["data"] == {"result": [{"x": 0}, {"x": 1}]}


def test_params_come_from_a_file_the_json_and_single_fields_and_the_later_win(command, project):
    (project / "params.json").write_text('{"width": 1, "url": "file", "mode": "fill"}', "utf-8")
    done = command(
        "call", "--app", "app:worker", "resize", '{"width": 2}', "-f", "params.json", "-p", "width=30", "--json"
    )
    reported = json.loads(done.stdout)
    assert (done.returncode, reported["status"], reported["data"]) == (0, "success", {"pixels": 60})
    assert reported["events"] == [{"type": "alert", "payload": {"url": "file"}}]
    assert reported["progress"] == [{"progress": 0.5, "message": "half [of it]"}]
    assert reported["duration"] > 0


def test_a_failure_is_exit_code_1_with_its_code_and_details(command):
    done = command(
        "call", "--app", "app:worker", "refuse", "-f", "-", "--metadata", '{"a": 1}', stdin='{"why": "no [b]licence"}'
    )
    assert done.returncode == 1
    assert "PERMANENT_ERROR: no [b]licence" in done.stdout
    assert '"a": 1' in done.stdout
    invalid = command("call", "--app", "app:worker", "resize", "-p", "width=-1", "--json")
    assert invalid.returncode == 1
    assert json.loads(invalid.stdout)["error"]["code"] == "INVALID_INPUT_ERROR"


def test_a_deadline_ends_the_task_with_exit_code_1(command):
    done = command("call", "--app", "app:worker", "wait", "--deadline", "0.2", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "TIMEOUT_ERROR"


def test_files_of_the_result_are_kept_at_their_uris(command, project):
    done = command("call", "--app", "app:worker", "write", "-p", "text=hello", "--json", TMPDIR=str(project))
    uri = json.loads(done.stdout)["data"]["file"]
    assert Path(uri.removeprefix("file://")).read_text("utf-8") == "hello"
    assert uri.startswith(f"file://{project}/worker-call-")
    own = command("call", "--app", "app:worker", "write", "-p", "text=a", "--json", WORKER_FILE_STORE_ROOT="store")
    assert json.loads(own.stdout)["data"]["file"].startswith(f"file://{project}/store/")


def test_ctrl_c_cancels_the_task(project):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "avtomatika_worker.cli", "call", "--app", "app:worker", "wait"],
        cwd=project,
        env={"PATH": "", "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        assert "begun" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().startswith("cancelled in ")
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rezise",), "no skill 'rezise'; did you mean resize?"),
        (("resize", "{width: 1}"), "quote it for the shell"),
        (("resize", "--metadata", "{a: 1}"), """quote it for the shell: '{"width": 100}')"""),
        (("resize", "[1]"), "it should be an object"),
        (("resize", "-p", "width"), "write it as name=value"),
        (("resize", "-p", "width=wide"), "--param width='wide': it should be an integer"),
        (("resize", "-f", "nowhere.json"), "nowhere.json: cannot be read: No such file"),
        (("resize", '{"url": "\\ud800"}'), "the task: it cannot be sent to a worker"),
        (("resize", '{"url": "x", "sizes": [NaN]}'), "it cannot be sent to a worker: $.params.sizes[0]: nan does not"),
        (("resize", '{"url": "x", "width": 1e400}'), "it cannot be sent to a worker: $.params.width: inf does not"),
    ],
)
def test_what_was_typed_wrong_is_one_line_and_exit_code_2(command, arguments, message):
    done = command("call", "--app", "app:worker", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("worker: ")
    assert message in line


def test_a_file_that_breaks_off_is_not_blamed_on_the_shell(command):
    done = command("call", "--app", "app:worker", "resize", "-f", "-", stdin='{"width": 1')
    assert done.returncode == 2
    assert done.stderr.startswith("worker: --file -: not JSON: ")
    assert "shell" not in done.stderr


def test_the_environment_takes_part_but_points_to_no_other_orchestrator(command):
    done = command("call", "--app", "app:worker", "resize", "-p", "width=0", ORCHESTRATOR_URL="http://192.0.2.1")
    assert done.returncode == 1
    wrong = command("call", "--app", "app:worker", "resize", MAX_CONCURRENT_TASKS="many")
    assert wrong.returncode == 2
    assert "MAX_CONCURRENT_TASKS" in wrong.stderr


def test_skills_are_listed_for_people_machines_and_documentation(command):
    shown = command("skills", "--app", "app:worker", COLUMNS="80")
    assert shown.returncode == 0, shown.stderr
    assert "resize  price 0.5" in shown.stdout
    assert "    width  integer (≥ 1, ≤ 4000): In pixels." in shown.stdout
    assert "may end as needs_review" in shown.stdout
    assert [line for line in shown.stdout.splitlines() if len(line) > 80 or line.endswith(" ")] == []
    reported = json.loads(command("skills", "--app", "app:worker", "--json").stdout)["skills"]
    assert [skill["name"] for skill in reported] == ["resize", "refuse", "write", "compose", "points", "wait"]
    assert reported[0]["input_schema"]["required"] == ["width", "url"]
    page = command("skills", "--app", "app:worker", "--markdown").stdout
    assert page.startswith("# Skills\n\n## `resize`\n\nResize a picture.\n")
    assert "| `width` | integer (≥ 1, ≤ 4000) |  | In pixels. |" in page
    both = command("skills", "--app", "app:worker", "--markdown", "--json")
    assert both.returncode == 2


def test_objects_that_are_alternatives_are_named_by_their_titles():
    circle, square = ({"type": "object", "title": title} for title in ("Circle", "Square"))
    whole = {"$defs": {"Circle": circle}}
    assert (
        type_of({"anyOf": [{"$ref": "#/$defs/Circle"}, square, {"type": "null"}]}, whole) == "Circle or Square or null"
    )
    assert type_of({"anyOf": [{"type": "object"}, {"type": "string", "title": "Text"}]}, {}) == "object or string"


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"minLength": 1}, "at least 1 character"),
        ({"minLength": 2}, "at least 2 characters"),
        ({"minLength": 1, "maxLength": 1}, "1 character"),
        ({"minLength": 36, "maxLength": 36}, "36 characters"),
        ({"minLength": 1, "maxLength": 4}, "1 to 4 characters"),
        ({"maxLength": 80}, "0 to 80 characters"),
    ],
)
def test_the_length_of_a_text_is_counted_in_words_that_fit(bounds, words):
    assert type_of({"type": "string", **bounds}, {}) == f"string ({words})"


def test_version_is_a_line_or_what_a_report_should_name(command):
    line = command("version").stdout.strip()
    reported = json.loads(command("version", "--json").stdout)
    assert reported["version"] == line
    assert "1.0b17" in reported["protocols"]
