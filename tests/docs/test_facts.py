"""Numbers and names that the pages repeat are those of the code."""

from __future__ import annotations

import ast
import re
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import fields

import pytest

import avtomatika_worker
from avtomatika_worker import CancelReason, TaskContext, TaskError, TaskFiles, Worker
from avtomatika_worker._atexit import EXIT_TIMEOUT
from avtomatika_worker.config import describe
from avtomatika_worker.delivery.sqlite_store import WRITE_TIMEOUT
from avtomatika_worker.devserver.faults import FaultCall, FaultKind
from avtomatika_worker.execution.resources import CLOSE_TIMEOUT
from avtomatika_worker.skills.run_options import SkillOptions
from avtomatika_worker.supervisor import ANNOUNCE_TIMEOUT, FLUSH_TIMEOUT, REPORT_TIMEOUT
from avtomatika_worker.testing import SkillResult
from avtomatika_worker.worker import program
from docs.blocks import ROOT

DOCS = ROOT / "docs"
UNITS = {"s": 1, "day": 86_400, "days": 86_400, "MiB": 2**20, "GiB": 2**30}
DEFAULT = re.compile(r"`(?P<variable>[A-Z][A-Z0-9_]{5,})`\s+\((?P<number>a|[\d,.]+)(?: (?P<unit>s|days?|[MG]iB))?\)")
"""A setting with its default behind it, as in `HEARTBEAT_INTERVAL` (15 s)."""


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_defaults_in_the_text_are_those_of_the_settings():
    defaults = {row.variable: row.default for row in describe()}
    named = [
        (path.name, match)
        for path in sorted(DOCS.rglob("*.md"))
        for match in DEFAULT.finditer(path.read_text("utf-8"))
        if match["variable"] in defaults
    ]
    assert len(named) >= 10
    wrong = [
        f"{name}: {match[0]}, but the default is {defaults[match['variable']]}"
        for name, match in named
        if float(match["number"].replace(",", "").replace("a", "1")) * UNITS[match["unit"] or "s"]
        != float(defaults[match["variable"]])
    ]
    assert wrong == []


def test_the_steps_of_a_shutdown_have_the_limits_that_the_page_names():
    worker = Worker()
    worker.skill("one")(lambda: None)
    settings = worker.load_settings({})
    shutdown = section(page("operations.md"), "Shutdown")
    steps = re.findall(r"^\| .+ \| (.*\d s.*) \|$", shutdown, re.MULTILINE)
    seconds = [[float(each) for each in re.findall(r"(\d+) s", step)] for step in steps]
    grace = next(iter(worker.skills)).options.cancel_grace
    limits = [
        [ANNOUNCE_TIMEOUT],
        [settings.shutdown_timeout],
        [grace, REPORT_TIMEOUT],
        [FLUSH_TIMEOUT + 1],
        [ANNOUNCE_TIMEOUT],
        [REPORT_TIMEOUT],
        [1.0, WRITE_TIMEOUT],
        [CLOSE_TIMEOUT + 1],
        [EXIT_TIMEOUT],
    ]
    assert seconds == limits
    total = program.longest_shutdown(worker.skills, settings)
    assert f"Together they may take {total:.0f} s" in shutdown
    sum_of_rows = sum(map(sum, limits)) - WRITE_TIMEOUT
    assert f"The rows add up to more ({sum_of_rows:.0f} s, {sum_of_rows + WRITE_TIMEOUT:.0f} s" in shutdown
    assert f"{program.STEPS_LIMIT:.0f} s" in shutdown


@pytest.mark.parametrize("name", ["EXIT_OK", "EXIT_CRASHED", "EXIT_USAGE", "EXIT_FORCED", "EXIT_LOST"])
def test_every_exit_code_is_listed(name):
    assert f"\n| {getattr(program, name)} | " in section(page("operations.md"), "Shutdown")


def test_a_version_in_the_changelog_has_the_date_of_its_section():
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[1:]
    assert [title for title in titles if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", title)] == []


def test_doctor_says_in_the_walkthrough_what_it_says_today():
    doctor = (ROOT / "src" / "avtomatika_worker" / "cli" / "doctor.py").read_text("utf-8")
    store = (ROOT / "src" / "avtomatika_worker" / "cli" / "doctor_store.py").read_text("utf-8")
    sections = set(re.findall(r'Section\("([^"]+)"', doctor))
    shown = page("walkthrough.md").partition("worker doctor\n")[2].partition("```")[0]
    headings = {line for line in shown.splitlines() if line and line[0].isupper() and not line.startswith("Orchestr")}
    assert headings == sections
    (note,) = re.findall(r"note +(no store .*)", shown)
    assert note in store


THREADS = {"Thread": "name", "ThreadPoolExecutor": "thread_name_prefix", "OneThread": "name"}
"""What makes threads, and the argument with their name."""


def name_of_thread(call: ast.Call, keyword: str, module: ast.Module) -> str:
    """Return the name of the threads that a call makes, without what numbers them."""
    given = [each.value for each in call.keywords if each.arg == keyword] or call.args[-1:]
    names = [node.value for each in given for node in ast.walk(each) if isinstance(node, ast.Constant)]
    if given and isinstance(given[0], ast.Name):
        names = [
            node.value.value
            for node in ast.walk(module)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == given[0].id
        ]
    return str(names[0]).strip() if names else ""


def threads_of_the_code() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "src").rglob("*.py")):
        module = ast.parse(path.read_text("utf-8"))
        for call in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
            made = ast.unparse(call.func).rpartition(".")[2]
            if made in THREADS and path.name != "making.py":  # what makes a OneThread names it
                default = "resource" if made == "OneThread" else "a thread without a name"
                yield f"{path.name}:{call.lineno}", name_of_thread(call, THREADS[made], module) or default


def test_the_page_about_threads_names_each_thread():
    cells = re.findall(r"^\|(.+)\|$", page("explanation/threads.md").partition("## Why two loops")[0], re.MULTILINE)
    named = set(re.findall(r"`([a-z-]+)`", " ".join(cells)))
    found = dict(threads_of_the_code())
    assert len(found) > 25
    assert {where: name for where, name in found.items() if name not in named} == {}


def public(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {*project["optional-dependencies"]} - {"dev"}


NAMES = {
    "what a context has": ("guide/injection.md", "The context", public(TaskContext)),
    "the methods of files": ("files.md", "The task's directory: `TaskFiles`", public(TaskFiles)),
    "what a result in a test has": (
        "testing.md",
        "One skill at a time",
        {each.name for each in fields(SkillResult) if not each.name.startswith("_")},
    ),
    "faults": ("testing.md", "Bad days", {*typing.get_args(FaultKind), *typing.get_args(FaultCall)}),
    "reasons of a cancellation": ("guide/cancellation.md", "What is reported", {each.value for each in CancelReason}),
    "how a skill is run": ("guide/skills.md", "Limits", {f"{each.name}=" for each in fields(SkillOptions)}),
    "extras": ("quickstart.md", "1. Install", {f"[{each}]" for each in extras()}),
}


@pytest.mark.parametrize("what", NAMES)
def test_a_page_leaves_out_no_name(what):
    name, heading, names = NAMES[what]
    text = section(page(name), heading)
    assert text
    code = " ".join(re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)))
    assert {each for each in names if not re.search(rf"(?<![\w\[]){re.escape(each)}(?![\w\]])", code)} == set()


def test_each_error_of_a_task_is_listed_with_its_code():
    rows = re.findall(r"^\| `(\w+Error)` \| `([A-Z_]+)` \|", page("guide/results.md"), re.MULTILINE)
    exported = (getattr(avtomatika_worker, name) for name in avtomatika_worker.__all__)
    errors = {each for each in exported if isinstance(each, type) and TaskError in each.__bases__}
    assert dict(rows) == {each.__name__: each.code for each in errors}


def test_actions_that_the_pages_name_are_those_of_the_log():
    known = set(re.findall(r"^\| `(\w+)` \|", page("log-actions.md"), re.MULTILINE))
    alerts = section(page("operations.md"), "What to watch").partition("and in `/health`")[0]
    named = set(re.findall(r"`([a-z]+_[a-z_]+|crashed)`", alerts))
    for path in DOCS.rglob("*.md"):
        named.update(re.findall(r"\(action:? `?(\w+)`?\)", path.read_text("utf-8")))
        named.update(re.findall(r"`action: (\w+)`", path.read_text("utf-8")))
    assert len(named) > 15
    assert named - known == set()


def test_every_example_is_in_the_gallery_and_in_the_readme_beside_it():
    readme = (ROOT / "examples" / "README.md").read_text("utf-8")
    for path in (ROOT / "examples").iterdir():
        if not path.name.startswith(("test_", "README", "_", ".")):
            name = f"{path.name}/" if path.is_dir() else path.name
            assert f"({name})" in readme
            assert f"`{name}`" in page("gallery.md") or name == "parrot.py"
