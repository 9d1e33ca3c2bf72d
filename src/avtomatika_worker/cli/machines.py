"""Output for machines: with ``--json``, standard output carries one JSON value and nothing else."""

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
"""The code for errors that the user can correct: in the command line, the configuration or the app."""

CRASHED: Final = "CRASHED"

_kept: int | None = None


def write(text: str) -> bool:
    """Write a line to standard output; with ``--json``, to the original one, which nothing else can reach.

    Returns false once its reader has gone.
    """
    return _write(printable(text))


def write_json_line(value: object) -> bool:
    """Write a value as one line of JSON, with control characters escaped. Returns what `write` returns."""
    return _write(printable_json(json.dumps(value, ensure_ascii=False)))


def write_json(value: object) -> None:
    """Write a value as JSON, with control characters escaped."""
    _write(printable_json(json.dumps(value, indent=2, ensure_ascii=False)))


def _write(text: str) -> bool:
    if _kept is None:
        click.echo(text)
        return True
    data = f"{text}\n".encode()
    with contextlib.suppress(BrokenPipeError):  # the reader has gone
        while data:
            data = data[os.write(_kept, data) :]
        return True
    return False


def run_for_machines(command: Callable[[], Any], *, as_json: bool) -> NoReturn:
    """Run a command whose output a program reads, then exit; with ``as_json``, errors are JSON too."""
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
    """Redirect standard output to standard error until the process ends.

    This includes output of C code and of child processes; only `write` still reaches the original standard output.
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
