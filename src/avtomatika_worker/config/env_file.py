"""Files of ``KEY=VALUE`` lines (``.env``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from avtomatika_worker.errors import ConfigError

_LINE: Final = re.compile(r"(?:export\s+)?(?P<key>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)", re.DOTALL)
_SINGLE: Final = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")
_DOUBLE: Final = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_LONGEST: Final = 1_000
"""Lines that a value may have."""

_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}


def read_env_file(path: str | Path) -> dict[str, str]:
    r"""Return the variables of a file of ``KEY=VALUE`` lines.

    Supports ``export`` before a key, comments, and values in single (literal) or double quotes (``\n``, ``\"``,
    ``\\``), over several lines too; nothing is expanded. A repeated key has its last value. Raises ConfigError that
    names every other line without showing it, as it may be a secret.
    """
    try:
        if Path(path).is_fifo():
            raise ConfigError([f"{path}: cannot be read: it is a pipe, and reading it could take forever"])
        # Not splitlines(): values may hold U+2028, form feeds and the like.
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError([f"{path}: cannot be read: {reason}"]) from None
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, text in _statements(lines):
        stripped = text.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            key, value = _parse_line(stripped)
        except ValueError as error:
            problems.append(f"{path}, line {number}: {error}")
        else:
            values[key] = value
    if problems:
        raise ConfigError(problems)
    return values


def _statements(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield each line, with those that its quoted value goes on in, and the number of the first."""
    number = 0
    while number < len(lines):
        last = _end_of_value(lines, number)
        yield number + 1, "\n".join(lines[number : last + 1])
        number = last + 1


def _end_of_value(lines: list[str], first: int) -> int:
    """Return the line in which the value of a line ends; the same one when it is not quoted, or never ends."""
    match = _LINE.fullmatch(lines[first].strip())
    if match is None or not match["value"].startswith(("'", '"')):
        return first
    ends = _SINGLE if match["value"].startswith("'") else _DOUBLE
    for last in range(first, min(len(lines), first + _LONGEST)):
        text = "\n".join(lines[first : last + 1]).strip()
        found = _LINE.fullmatch(text)
        if found is not None and ends.fullmatch(found["value"]):
            return last
    return first


def _parse_line(line: str) -> tuple[str, str]:
    """Return key and value. Raises ValueError saying what is allowed."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("must be KEY=VALUE, a comment or empty")
    if "\0" in line:
        raise ValueError("a variable cannot hold the character NUL")
    return match["key"], _unquoted(match["value"])


def _unquoted(value: str) -> str:
    if not value.startswith(("'", '"')):
        return _COMMENT.sub("", value).rstrip()
    single = value.startswith("'")
    match = (_SINGLE if single else _DOUBLE).fullmatch(value)
    if match is None:
        raise ValueError("the value's closing quote is missing, or something follows it")
    if single:
        return match["text"]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), match["text"])
