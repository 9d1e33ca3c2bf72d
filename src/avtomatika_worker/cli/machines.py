"""Output for machines: with ``--json`` standard output has one JSON value, and nothing else that the process prints."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

import click

from avtomatika_worker.observability.printable import printable, printable_json

USAGE: Final = "USAGE_ERROR"
"""The code of what a user can correct: the command line, the configuration, the app."""

CRASHED: Final = "CRASHED"

_kept: int | None = None


def write(text: str) -> None:
    """Write a text, and the end of its line, to standard output; with ``--json`` to the one that is kept free."""
    _write(printable(text))


def write_json(value: object) -> None:
    """Write a value as JSON; what could command a terminal stands in escapes."""
    _write(printable_json(json.dumps(value, indent=2, ensure_ascii=False)))


def _write(text: str) -> None:
    if _kept is None:
        click.echo(text)
        return
    data = f"{text}\n".encode()
    with contextlib.suppress(BrokenPipeError):  # nobody reads any more
        while data:
            data = data[os.write(_kept, data) :]


def run_for_machines(command: Callable[[], Any], *, as_json: bool) -> NoReturn:
    """Run a command whose output a program reads; with ``as_json`` what keeps it from that is JSON, too. Exits."""
    _keep_standard_output()
    problem: tuple[str, str] | None = None
    try:
        code = command()
    except click.ClickException as error:
        error.show()
        problem = USAGE, error.format_message()
        code = error.exit_code
    except click.Abort:
        problem = CRASHED, "interrupted"
        code = 1
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last boundary: reported with its traceback and the exit code
        import traceback

        traceback.print_exception(error)
        problem = CRASHED, f"{type(error).__name__}: {error}"
        code = 1
    if as_json and problem is not None:
        error_of = {"code": problem[0], "message": problem[1]}
        write_json({"ok": False, "error": error_of})
    sys.exit(code)


def _keep_standard_output() -> None:
    """Send to standard error what is printed to standard output from now on, until the process has ended.

    By this process, by C code and by child processes; only `write` still has the former standard output.
    """
    global _kept
    try:
        _kept = os.dup(1)
    except OSError:  # it is closed
        _kept = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(2, 1)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = sys.stderr
