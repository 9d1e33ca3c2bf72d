"""Type checkers, strict, on what users write: right code is right, mistakes are found, no type is missing.

The samples are never run. A line of ``wrong.py`` with ``expect-error`` must be reported, and no other.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from needs import needs

SAMPLES = Path(__file__).parent / "samples"
WRONG = SAMPLES / "wrong.py"
EXAMPLES = Path(__file__).parents[2] / "examples"
MYPY = ("--strict", "--config-file=", "--python-version=3.11", "--hide-error-context", "--no-error-summary")

Findings = Mapping[tuple[str, int], str]
"""File's name and line → what the checker said."""


def run(*command: str) -> str:
    """Run a checker beside this interpreter; pyright looks for installed packages in the first Python of PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=SAMPLES, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # anything else: it did not check at all
    return done.stdout


def mypy(cache: Path) -> Findings:
    output = run("mypy", *MYPY, f"--cache-dir={cache}", *(path.name for path in sorted(SAMPLES.glob("*.py"))))
    found = re.findall(r"^([^:]+):(\d+): error: (.*)$", output, re.MULTILINE)
    return {(file, int(line)): message for file, line, message in found}


def pyright(_cache: Path) -> Findings:
    report = json.loads(run("pyright", "--project", "pyrightconfig.json", "--outputjson"))
    assert report["summary"]["filesAnalyzed"] == len(list(SAMPLES.glob("*.py")))
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"]
        for each in report["generalDiagnostics"]
        if each["severity"] != "information"
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Where mypy keeps what it has found of the package, which takes it longest."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=[pytest.param(each, marks=needs(each.__name__)) for each in (mypy, pyright)])
def findings(request, cache) -> Findings:
    checker: Callable[[Path], Findings] = request.param
    return checker(cache)


def test_correct_code_has_no_errors(findings):
    assert {place: message for place, message in findings.items() if place[0] != WRONG.name} == {}


def test_each_mistake_is_reported_where_it_is(findings):
    lines = enumerate(WRONG.read_text("utf-8").splitlines(), start=1)
    expected = {number for number, line in lines if "# expect-error" in line}
    reported = {line: message for (file, line), message in findings.items() if file == WRONG.name}
    assert expected, "no line is marked"
    assert reported.keys() == expected, reported


@needs("mypy")
def test_the_examples_are_typed_as_strictly(cache):
    files = [*EXAMPLES.glob("[!t]*.py"), EXAMPLES / "transcode.py", *EXAMPLES.glob("pipeline/[!o]*.py")]
    assert len(files) >= 7
    output = run("mypy", *MYPY, f"--cache-dir={cache}", *map(str, files))
    assert output == "", output


@needs("pyright")
def test_every_public_name_has_a_complete_type_and_a_docstring():
    report = json.loads(run("pyright", "--verifytypes", "avtomatika_worker", "--ignoreexternal", "--outputjson"))
    completeness = report["typeCompleteness"]
    assert completeness["pyTypedPath"], "the package was not found, or has no py.typed"
    complaints = [
        f"{symbol['name']}: {each['message']}" for symbol in completeness["symbols"] for each in symbol["diagnostics"]
    ]
    assert complaints == []
    assert completeness["completenessScore"] == 1
