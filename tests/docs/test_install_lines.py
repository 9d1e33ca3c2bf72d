"""No page and no message says to install the public index's package of this name: that is another product."""

import re
from pathlib import Path

import pytest

from avtomatika_worker import __version__
from docs.blocks import ROOT

NOTE = (
    "The `avtomatika-worker` on PyPI is the official SDK, a different package. Install this one from a clone or a wheel"
)
FOLDERS = ("src", "docs", "examples", "deploy", "bench", "cluster", "fuzz", "scripts")
SUFFIXES = {".md", ".py", ".toml", ".txt", ".yaml", ".yml", ".tmpl", ".html", ".js"}
NOT_READ = {"CHANGELOG.md"}
"""The history says what was wrong."""

NAME = r"avtomatika[-_]worker"
ELSEWHERE = r"(?<![\w./-])"
"""What stands before a name that is no part of a path."""

INSTALLED = re.compile(rf"pip3? install\b[^\n`]*?{ELSEWHERE}{NAME}(?!\.)")
REQUIRED = re.compile(rf"{ELSEWHERE}{NAME}\s*(\[|[<>=!~]=?\s*\d)(?!.{{0,3}}0b)")
"""As requirements are written; the benchmarks' official 1.0b… is meant."""

BY_PATH = re.compile(r"pip3? install\b[^\n`]*(/avtomatika-worker|'\.\.\[)")
"""As a user's project installs it; in the clone itself it is clear which package is meant."""


def texts() -> list[Path]:
    """Return every file that a user may read, or that may print what a user reads."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    top = [*ROOT.glob("*.md"), ROOT / "Makefile", *ROOT.rglob("deploy/**/Dockerfile"), ROOT / "Dockerfile"]
    return [path for path in (*top, *found) if path.name not in NOT_READ]


def wrong(text: str) -> list[str]:
    """Return the lines of a text that fetch the other package."""
    return [line for line in text.splitlines() if INSTALLED.search(line) or REQUIRED.search(line)]


@pytest.mark.parametrize(
    "line",
    [
        "pip install avtomatika-worker",
        "$ pip install 'avtomatika-worker[s3]' pillow",
        "run: pip install pytest avtomatika_worker",
        'pip install "avtomatika-worker[metrics]"',
        "avtomatika-worker>=0.1.0",
        "needs avtomatika-worker[s3]",
    ],
)
def test_a_line_that_fetches_the_other_package_is_found(line):
    assert wrong(line) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "$ pip install '../avtomatika-worker[pydantic]'",
        "pip install ../avtomatika-worker/dist/*.whl",
        "pip install dist/avtomatika_worker-0.1.0-py3-none-any.whl",
        "The `avtomatika-worker` on PyPI is the official SDK",
        "this worker, the official one (`avtomatika-worker==1.0b20`)",
        "from avtomatika_worker import Worker",
    ],
)
def test_any_other_line_is_not(line):
    assert wrong(line) == []


def test_nothing_says_to_install_the_other_package():
    found = {path.relative_to(ROOT).as_posix(): wrong(path.read_text("utf-8")) for path in texts()}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert {"README.md", "docs/quickstart.md", "examples/README.md"} <= found.keys()
    assert "src/avtomatika_worker/files/stores.py" in found


def test_pages_with_a_line_to_install_it_say_the_same_about_the_other_package():
    pages = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in texts() if path.suffix == ".md"}
    installing = {page: text for page, text in pages.items() if BY_PATH.search(text)}
    assert {"README.md", "docs/quickstart.md", "docs/testing.md", "docs/files.md"} <= installing.keys()
    plain = {page: " ".join(re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text).split()) for page, text in installing.items()}
    assert [page for page, text in plain.items() if NOTE not in text] == []


def test_wheels_are_named_as_they_are_built():
    named = {
        match
        for path in texts()
        if path.suffix == ".md"
        for match in re.findall(r"avtomatika_worker-[\w.]+-py3-none-any\.whl", path.read_text("utf-8"))
    }
    assert named == {f"avtomatika_worker-{__version__}-py3-none-any.whl"}
