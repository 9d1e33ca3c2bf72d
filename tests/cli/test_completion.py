"""Shell completion: the lines of docs/cli.md, evaluated by the shells themselves, and what they complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from needs import needs

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
SHELLS = ("bash", "zsh", "fish")


def line_for(shell):
    """Return the line that the page has for a shell's start-up file."""
    (line,) = re.findall(rf"^(.*_WORKER_COMPLETE={shell}_source.*?)\s*#", PAGE.read_text("utf-8"), re.MULTILINE)
    return line


def run(*command, cwd=None, **environment):
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": PATH, "HOME": os.environ.get("HOME", "/"), "PYTHONUTF8": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# What a shell does when Tab is pressed after "worker do", with the same functions that it calls itself.
PRESS_TAB = {
    "bash": "{line}\nCOMP_WORDS=(worker do); COMP_CWORD=1; _worker_completion worker\n"
    "printf '%s\\n' \"${{COMPREPLY[@]}}\"",
    "zsh": "autoload -Uz compinit; compinit -u -D\ncompadd() {{ print -l -- $completions }}\n"
    "_describe() {{ print -l -- $completions_with_descriptions }}\n{line}\n"
    "words=(worker do); CURRENT=2; _worker_completion",
    "fish": "{line}\ncomplete --do-complete 'worker do'",
}


@pytest.mark.parametrize(
    "shell", ["bash", pytest.param("zsh", marks=needs("zsh")), pytest.param("fish", marks=needs("fish"))]
)
def test_a_shell_completes_commands_after_the_line_of_the_page(shell):
    flags = {"bash": ("--norc", "-c"), "zsh": ("-f", "-c"), "fish": ("--no-config", "-c")}[shell]
    offered = run(shell, *flags, PRESS_TAB[shell].format(line=line_for(shell)))
    assert re.split(r"[:\t\n]", offered)[0] == "doctor"
    assert "run" not in re.split(r"[:\t\n]", offered)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_offered_needs_no_shell_to_be_seen(shell):
    """The part that runs in our process, where the shells are not installed: commands, then options of a command."""
    words = {"COMP_WORDS": "worker call --", "COMP_CWORD": "--" if shell == "fish" else "2"}
    offered = run("worker", _WORKER_COMPLETE=f"{shell}_complete", **words)
    for option in ("--app", "--param", "--file", "--deadline", "--json"):
        assert option in re.split(r"[,\t\n]", offered)
    assert run("worker", _WORKER_COMPLETE=f"{shell}_source").count("_WORKER_COMPLETE") == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_the_names_of_skills_are_offered_and_nothing_that_the_app_writes(shell, tmp_path):
    app = """
import os
from avtomatika_worker import Worker
worker = Worker(worker_type="test")
print("noise"), os.write(1, b"noise\\n"), os.write(2, b"noise\\n")

@worker.skill
def resize():
    \"\"\"Resize: a picture.\"\"\"

@worker.skill
def refuse(): ...
"""
    (tmp_path / "main.py").write_text(app, "utf-8")
    (tmp_path / "broken.py").write_text("print('noise')\n1 / 0\n", "utf-8")

    def offered(*typed):
        words = {"COMP_WORDS": " ".join(["worker", "call", *typed]), "COMP_CWORD": str(len(typed) + 1)}
        if shell == "fish":
            words["COMP_CWORD"] = typed[-1]
        return run("worker", _WORKER_COMPLETE=f"{shell}_complete", cwd=tmp_path, **words)

    assert "resize" in offered("re")
    assert "refuse" in offered("re")
    assert "refuse" not in offered("res")
    assert "resize" in offered("--app", "main:worker", "re")
    assert "noise" not in offered("re")
    assert offered("--app", "broken:worker", "re").strip() in {"", "_"}


def test_bash_completes_the_name_of_a_skill(tmp_path):
    app = "from avtomatika_worker import Worker\nworker = Worker()\n@worker.skill\ndef resize(): ...\n"
    (tmp_path / "main.py").write_text(app, "utf-8")
    press = "COMP_WORDS=(worker call re); COMP_CWORD=2; _worker_completion worker; echo ${COMPREPLY[@]}"
    assert run("bash", "--norc", "-c", f"{line_for('bash')}\n{press}", cwd=tmp_path).strip() == "resize"
