"""Every block of the documentation is run, or at least read by what would read it.

Python runs page by page, from top to bottom; a block with a title is a file of the page's project, in which commands
are run. What a page needs besides, and what shows that its skills do what it says, is in ``hidden/``. A block that is
not run says why, in a comment before it: ``<!-- not run: … -->``.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from avtomatika_worker import SkillBlueprint, Worker
from avtomatika_worker.cli.worker_app import USUAL
from avtomatika_worker.config import read_env_file, unknown_variables
from docs.blocks import ROOT, blocks_of, pages
from docs.commands import check_variables, check_words, commands_of, simple_commands
from own_pytest import PLAIN

HIDDEN = Path(__file__).parent / "hidden"
OPTIONS = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
NOT_CODE = {"text", "mermaid"}
SHELLS = {"console", "bash", "sh"}
RUN_FOR_REAL = re.compile(r"worker (call|skills|version|init)\b(?!.*(\||…|<))")
PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of(*languages: str) -> list[Any]:
    """Return the blocks in these languages that are to be looked at."""
    found = [block for block in BLOCKS if block.language in languages and block.not_run is None]
    return [pytest.param(block, id=str(block)) for block in found]


# ------------------------------------------------------------------------------------------------------ Python


class Project:
    """The files that a page shows, in a directory, and the names that its Python makes."""

    def __init__(self, page: str, directory: Path) -> None:
        self.page = page
        self.directory = directory
        self.hidden = _hidden(page)
        self.module = types.ModuleType("docs_page_" + re.sub(r"\W", "_", page))
        self.workers: list[Worker] = []

    @property
    def names(self) -> dict[str, Any]:
        return self.module.__dict__

    def write(self) -> None:
        """Write the files."""
        for block in blocks_of(self.page):
            if block.title is not None:
                path = self.directory / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")

    def run(self) -> None:
        """Run the Python, in order. A page that only adds to a worker need not make one."""
        self.names["worker"] = Worker()
        self.names.update(getattr(self.hidden, "before", dict)())
        for block in blocks_of(self.page):
            if block.language != "python" or block.not_run or block.included:
                continue
            if block.title is None:
                # Lines are counted as in the page, so that a traceback points into it.
                code = compile("\n" * (block.line - 1) + block.text, str(ROOT / self.page), "exec", dont_inherit=True)
                exec(code, self.names)  # noqa: S102 - the documentation's own code
                assert "def test_" not in block.text, f"{block}: a test has a file, so that pytest runs it"
            elif not Path(block.title).name.startswith("test_"):
                name = block.title.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                self.names.update(vars(importlib.import_module(name)))
            self._check_workers()

    def _check_workers(self) -> None:
        """Compile every skill that there is: mistakes in them show no earlier."""
        for value in list(self.names.values()):
            if isinstance(value, SkillBlueprint):
                taker = Worker()
                taker.include_blueprint(value)
                taker.skills.freeze()
            if isinstance(value, Worker) and not any(value is each for each in self.workers):
                self.workers.append(value)
        for worker in self.workers:
            worker.load_skills(worker.load_settings({}))

    def test(self) -> None:
        """Run the tests that the page shows, as its reader would."""
        if any(self.directory.rglob("test_*.py")):
            own = [] if (self.directory / "pyproject.toml").exists() else ["-c", os.devnull, "--rootdir=.", *OPTIONS]
            # The command, not `python -m`, which would find modules of the working directory by itself.
            pytest_itself = str(Path(sys.executable).with_name("pytest"))
            done = _run([pytest_itself, "-q", *PLAIN, "-p", "no:randomly", *own], self.directory)
            assert done.returncode == 0, done.stdout


def _hidden(page: str) -> types.ModuleType | None:
    path = HIDDEN / (re.sub(r"\W", "_", page.removeprefix("docs/").removesuffix(".md")).lower() + ".py")
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"docs_hidden_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(request, tmp_path, monkeypatch) -> Iterator[Project]:
    project = Project(request.param, tmp_path / "project")
    project.directory.mkdir()
    monkeypatch.chdir(project.directory)
    monkeypatch.syspath_prepend(str(project.directory))
    before = set(sys.modules)
    sys.modules[project.module.__name__] = project.module
    project.write()
    yield project
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or next(
            iter(getattr(sys.modules[name], "__path__", [])), ""
        )
        if str(file).startswith(str(tmp_path)) or name == project.module.__name__:
            del sys.modules[name]


PYTHON_PAGES = sorted({block.page for block in BLOCKS if block.language == "python" and not block.included})


@pytest.mark.parametrize("project", PYTHON_PAGES, indirect=True, ids=PYTHON_PAGES)
def test_the_python_of_a_page_runs(project):
    project.run()
    project.test()
    after = getattr(project.hidden, "after", None)
    if after is not None:
        outcome = after(project.names)
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)


def test_everything_hidden_belongs_to_a_page():
    known = {re.sub(r"\W", "_", page.removeprefix("docs/").removesuffix(".md")).lower() for page in PAGES}
    assert {path.stem for path in HIDDEN.glob("*.py")} <= known


# ------------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize("block", of(*SHELLS))
def test_commands_can_be_typed_as_shown(block):
    for command in commands_of(block):
        done = subprocess.run(["bash", "-n"], input=command.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if any(line.startswith("worker: ") for line in command.shown):
            continue  # a mistake, shown with the answer to it
        for variables, words in simple_commands(command.text):
            check_variables(variables)
            if words:
                check_words(words)


COMMAND_PAGES = sorted(
    {
        block.page
        for block in BLOCKS
        if block.language in SHELLS
        and not block.not_run
        and any(RUN_FOR_REAL.match(command.text) for command in commands_of(block))
        and (block.page != "docs/cli.md")
    }
)


@pytest.mark.parametrize("project", COMMAND_PAGES, indirect=True, ids=COMMAND_PAGES)
def test_commands_do_what_the_page_shows(project):
    for block in blocks_of(project.page):
        for command in commands_of(block) if block.language in SHELLS and not block.not_run else ():
            app = re.search(r"--app (\w+(?:\.\w+)*):", command.text)
            modules = [app[1]] if app else [usual.partition(":")[0] for usual in USUAL]
            there = re.match(r"worker (version|init)", command.text) or any(
                (project.directory / (each.replace(".", "/") + ".py")).exists() for each in modules
            )
            if not RUN_FOR_REAL.match(command.text) or not there:
                continue
            line = command.text.replace("worker ", f"{sys.executable} -m avtomatika_worker.cli ", 1)
            done = _run(["bash", "-c", line], project.directory)
            assert done.returncode in {0, 1}, f"{block}: {done.stdout}"
            _compare(command.shown, done.stdout, f"{block}: {command.text}")


def _compare(shown: list[str], written: str, where: str) -> None:
    """Find each line that is shown in what was written, in order; durations differ and ``…`` is anything."""
    lines = iter([" ".join(line.split()) for line in written.splitlines()])
    for line in shown:
        pattern = re.escape(" ".join(line.split())).replace("…", ".*")
        pattern = re.sub(r"\d+\\\.\d+\\ s\b", r"\\d+\\.\\d+\\ s", pattern)
        assert any(re.fullmatch(pattern, each) for each in lines), f"{where}\n{line!r} is not in:\n{written}"


def _run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_STATE_HOME": str(directory.parent / "state"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )


# ------------------------------------------------------------------------------------------------------ other languages


def _settings_can_be_loaded(text: str) -> None:
    Path("env").write_text(text, encoding="utf-8")
    variables = read_env_file(Path("env"))
    assert unknown_variables(variables) == []
    check_variables(variables)


def _yaml_names_settings_that_exist(text: str) -> None:
    for document in yaml.safe_load_all(text):
        check_variables(dict(_variables_in(document)))


def _variables_in(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for each in value.get("env") or () if isinstance(value.get("env"), list) else ():
            yield each["name"], str(each.get("value", "…"))
        if value.get("kind") in {"ConfigMap", "Secret"}:
            yield from (value.get("data") or value.get("stringData") or {}).items()
        for item in value.values():
            yield from _variables_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _variables_in(item)


def _dockerfile_names_commands_and_settings_that_exist(text: str) -> None:
    known = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "CMD", "ENTRYPOINT", "HEALTHCHECK", "VOLUME"}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        instruction, _, rest = line.partition(" ")
        assert not line.strip() or line.startswith("#") or instruction in known, line
        if instruction == "ENV":
            check_variables(dict([rest.split("=", 1)]))
        elif instruction in {"CMD", "ENTRYPOINT"}:
            check_words(json.loads(rest))


def _server_configuration_is_whole(text: str) -> None:
    assert text.count("{") == text.count("}")
    for line in text.splitlines():
        code = line.partition("#")[0].rstrip()
        assert not code or code[-1] in ";{}", line


def _javascript_parses(text: str) -> None:
    Path("page.mjs").write_text(text, encoding="utf-8")
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    subprocess.run([node, "--check", "page.mjs"], check=True)


READERS: dict[str, Callable[[str], object]] = {
    "env": _settings_can_be_loaded,
    "javascript": _javascript_parses,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": _yaml_names_settings_that_exist,
    "dockerfile": _dockerfile_names_commands_and_settings_that_exist,
    "nginx": _server_configuration_is_whole,
}


@pytest.mark.parametrize("block", of(*READERS))
def test_blocks_that_are_not_programs_can_be_parsed(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    READERS[block.language](block.text)


def test_every_block_has_a_language_that_is_looked_at():
    looked_at = {"python", *READERS, *SHELLS, *NOT_CODE}
    assert [f"{block}: {block.language or 'none'}" for block in BLOCKS if block.language not in looked_at] == []


def test_blocks_that_are_not_run_are_few():
    assert len([block for block in BLOCKS if block.not_run]) <= 3
