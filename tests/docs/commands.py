"""What a block of commands says: each command with its variables, and what is shown below it."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise

import click

from avtomatika_worker.cli import main as worker_command
from avtomatika_worker.config import describe, load_settings
from docs.blocks import ROOT, Block

SETTINGS = {row.variable for row in describe()}
OTHERS = re.compile(
    r"(WORKER_EXTRA_|OTEL_|AWS_|GOOGLE_|AZURE_|AVTOMATIKA_|_WORKER_COMPLETE|HTTPS?_PROXY|NO_PROXY|NO_COLOR|ARGS|JOBS"
    r"|PYTHON|CUDA_|SSL_CERT|NVIDIA_)"
)
"""Variables that are not the worker's own settings."""

ELSEWHERE = frozenset(
    [
        "cat",
        "cd",
        "chmod",
        "cp",
        "curl",
        "docker",
        "eval",
        "export",
        "git",
        "grep",
        "journalctl",
        "jq",
        "kill",
        "kubectl",
        "ls",
        "mkdir",
        "mv",
        "nginx",
        "openssl",
        "py-spy",
        "source",
        "systemctl",
        "touch",
    ]
)
"""Commands that need not be there where the tests run."""

_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)
_VAGUE = "…"


@dataclass
class Command:
    """A command as it was typed, and the lines shown below it."""

    text: str
    shown: list[str] = field(default_factory=list)


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a block: those behind ``$`` in a console, every line of a script."""
    found: list[Command] = []
    going_on = False
    for line in block.text.splitlines():
        if going_on:
            found[-1].text += "\n" + line
        elif block.language == "console" and line.startswith("$ "):
            found.append(Command(line[2:]))
        elif block.language == "console":
            assert found, f"{block}: a console begins with a command"
            found[-1].shown += [line] if line.strip() else []
            continue
        elif line.strip() and not line.lstrip().startswith("#"):
            found.append(Command(line))
        else:
            continue
        going_on = found[-1].text.endswith("\\") or found[-1].text.count("'") % 2 == 1
    return found


def simple_commands(text: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Return the simple commands of a line, each with the variables set for it."""
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for token in [*lexer, ";"]:
        if skip:
            skip = False
        elif set(token) <= set("<>"):
            skip = True
        elif set(token) <= set("|&;"):
            if words:
                yield _with_variables(words)
            words = []
        else:
            words.append(token)


def _with_variables(words: list[str]) -> tuple[dict[str, str], list[str]]:
    variables: dict[str, str] = {}
    rest = list(words)
    if rest[0] == "export":
        rest = rest[1:]
        assert all(_ASSIGNMENT.fullmatch(each) for each in rest), words
    while rest and (match := _ASSIGNMENT.fullmatch(rest[0])):
        variables[match["name"]] = match["value"]
        rest = rest[1:]
    return variables, rest


def check_variables(variables: dict[str, str]) -> None:
    """Raise when a variable is no setting, or has a value that the worker refuses."""
    unknown = [name for name in variables if name not in SETTINGS and not OTHERS.match(name)]
    assert not unknown, f"no such settings: {unknown}"
    known = {n: v for n, v in variables.items() if n in SETTINGS and _VAGUE not in v and "$" not in v}
    if "…" not in " ".join(variables.values()):
        files = {name for name in known if name.startswith("TLS_") and name.endswith("_PATH")}
        load_settings({name: value for name, value in known.items() if name not in files})


def check_words(words: list[str]) -> None:
    """Raise when a command cannot be typed like this."""
    program, arguments = words[0], words[1:]
    if program.startswith(".venv/bin/"):
        program = program.removeprefix(".venv/bin/")
    if program == "worker":
        check_worker(arguments)
    elif program == "pip":
        _check_pip(arguments)
    elif program == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
        assert {each for each in arguments if "=" not in each} <= targets, words
    elif program.startswith("python"):
        if arguments[:1] == ["-m"]:
            assert find_spec(arguments[1]) is not None, words
    else:
        assert program in ELSEWHERE | {"pytest", "ruff", ".ci/run"}, (
            f"{program!r} is not known to the tests of the docs"
        )


def check_worker(arguments: list[str]) -> None:
    """Raise when ``worker`` does not take these arguments."""
    context = click.Context(worker_command, info_name="worker")
    if arguments[:1] in ([], ["--help"], ["--version"], ["-h"]):
        return
    command = worker_command.commands[arguments[0]]
    if {"--help", "-h"} & set(arguments):
        return
    command.make_context(arguments[0], [*arguments[1:]], parent=context)


def _check_pip(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    assert arguments[0] == "install", arguments
    groups = {group for option, group in pairwise(arguments) if option == "--group"}
    assert groups <= project["dependency-groups"].keys(), f"no such groups: {groups}"
    for each in arguments:
        if match := re.fullmatch(r"(?:(?:\.\./)?avtomatika-worker|\.)\[([\w,]+)\]", each):
            unknown = set(match[1].split(",")) - extras.keys()
            assert not unknown, f"no such extras: {unknown}"
