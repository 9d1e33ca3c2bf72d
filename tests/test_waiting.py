"""Tests wait for states: not for time to pass, nor for a line of the log. Those of ``e2e/`` have real clocks."""

import ast
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

LONGEST = 0.05
"""Seconds that a test may sleep."""

NEVER = 30
"""A sleep of this many seconds or more stands for what never ends: nobody waits for it."""


def sleeps(tree):
    """Return the lines of sleeps that are too long."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="sleep") | ast.Attribute(attr="sleep"),
                args=[ast.Constant(value=int() | float() as s), *_],
            ) if LONGEST < s < NEVER:
                yield node.lineno


def waits_for_log_lines(tree):
    """Return the lines of waits whose condition reads the log."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in {"wait_for", "until"}:
                conditions = [each for each in node.args if isinstance(each, ast.Lambda)]
                names = {each.id for lambda_ in conditions for each in ast.walk(lambda_) if isinstance(each, ast.Name)}
                if names & {"actions", "caplog"}:
                    yield node.lineno


def counted(find, root=TESTS):
    found = Counter()
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        if not name.startswith("e2e/"):
            found[name] += sum(1 for _ in find(ast.parse(path.read_text("utf-8"))))
    return dict(+found)


@pytest.mark.parametrize("find", [sleeps, waits_for_log_lines])
def test_no_test_waits_for_luck(find):
    assert counted(find) == {}


@pytest.mark.parametrize(
    ("find", "source", "count"),
    [
        (sleeps, "await asyncio.sleep(0.06)", 1),
        (sleeps, "time.sleep(1)\nsleep(2)", 2),
        (sleeps, "await asyncio.sleep(0.05)\nawait asyncio.sleep(0)\ntime.sleep(60)\nsleep(pause)", 0),
        (waits_for_log_lines, "await until(lambda: actions(caplog, 'x'))", 1),
        (waits_for_log_lines, "await o.wait_for(lambda: any(each for each in caplog.records))", 1),
        (waits_for_log_lines, "await o.wait_for(lambda: job.state.final)\nassert actions(caplog, 'x')", 0),
    ],
)
def test_what_is_found(tmp_path, find, source, count):
    (tmp_path / "test_it.py").write_text(source, "utf-8")
    assert counted(find, tmp_path) == ({"test_it.py": count} if count else {})
