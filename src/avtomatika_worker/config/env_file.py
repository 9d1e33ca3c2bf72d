"""Files of ``KEY=VALUE`` lines (``.env``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from avtomatika_worker.errors import ConfigError

_LINE: Final = re.compile(r"(?:export\s+)?(?P<key>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")
_SINGLE: Final = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")
_DOUBLE: Final = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}


def read_env_file(path: str | Path) -> dict[str, str]:
    r"""Return the variables of a file of ``KEY=VALUE`` lines.

    Supports ``export`` before a key, comments, and values in single (literal) or double quotes (``\n``, ``\"``,
    ``\\``); nothing is expanded. A repeated key has its last value. Raises ConfigError that names every other line
    without showing it, as it may be a secret.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError([f"{path}: cannot be read: {reason}"]) from None
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
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


def _parse_line(line: str) -> tuple[str, str]:
    """Return key and value. Raises ValueError saying what is allowed."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("must be KEY=VALUE, a comment or empty")
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
