"""The kinds of values that variables hold: how each is parsed, and what is allowed.

A parser takes a variable's text and returns its value; a check takes a value and returns nothing. Both raise ValueError
with a sentence that says what is allowed; the caller adds the variable and its value.
"""

from __future__ import annotations

import enum
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from avtomatika_worker.policy.call_budget import MARGIN, UNLIMITED, CallLimit
from avtomatika_worker.protocol.uris import S3Uri

_BOOLEANS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_IN_HOSTS: Final = re.compile(r"[\s\x00-\x1f\x7f]")


_SHOWN: Final = 120
"""Characters shown of a wrong value."""


def presentable(value: object) -> str:
    """Return the part of a wrong value to show: not too much, and never a URL's password or query, however written."""
    if isinstance(value, str):
        value = re.sub(r"(?s)^((?:[A-Za-z]+:)?/*).*@", r"\1***@", value)
        value = re.sub(r"(?s)\?.+", "?***", value)
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"


def _accept(_value: Any) -> None:
    """Allow every value."""


class Kind(msgspec.Struct, frozen=True):
    """How the values of a setting are parsed and checked.

    A value given by a program may be an instance of ``types``; texts are parsed unless ``str`` is one of them.
    """

    parse: Callable[[str], Any]
    types: tuple[type, ...]
    check: Callable[[Any], object] = _accept

    def read(self, text: str) -> Any:
        """Return the value of ``text``. Raises ValueError that says what is allowed."""
        value = self.parse(text)
        self.check(value)
        return value

    def take(self, value: object) -> Any:
        """Return a value given by a program after the checks for a variable's. Raises ValueError."""
        if isinstance(value, str):
            return self.read(value)
        if not isinstance(value, self.types) or (isinstance(value, bool) and bool not in self.types):
            raise ValueError(f"must be {' or '.join(kind.__name__ for kind in self.types)}")
        self.check(value)
        return value


def check_unicode(value: str) -> None:
    """Raise ValueError for a variable that held bytes other than UTF-8: it could never be sent."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid UTF-8") from None


def text() -> Kind:
    """Any text."""
    return Kind(str, (str,), check_unicode)


def identifier() -> Kind:
    """An id that orchestrators accept (RXON.md, "Identifiers")."""

    def check(value: str) -> None:
        if not _IDENTIFIER.fullmatch(value):
            raise ValueError("must be 1 to 128 characters from A-Z, a-z, 0-9, _ and -")

    return Kind(str, (str,), check)


def check_token(value: str) -> None:
    """Raise ValueError unless ``value`` can be sent in an HTTP header."""
    if not _TOKEN.fullmatch(value):
        raise ValueError("must be printable ASCII without spaces (it is sent in an HTTP header)")


def token() -> Kind:
    """A secret sent in a header."""
    return Kind(str, (str,), check_token)


def boolean() -> Kind:
    """Yes or no."""

    def parse(value: str) -> bool:
        try:
            return _BOOLEANS[value.lower()]
        except KeyError:
            raise ValueError("must be true or false (or 1/0, yes/no, on/off)") from None

    return Kind(parse, (bool,))


def integer(*, least: int, most: int | None = None) -> Kind:
    """A whole number within bounds."""
    allowed = f"must be a whole number of at least {least}" + ("" if most is None else f" and at most {most}")

    def parse(value: str) -> int:
        # int() alone would accept "1_0" and digits of other scripts.
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", value):
            raise ValueError(allowed)
        return int(value)

    def check(value: int) -> None:
        if value < least or (most is not None and value > most):
            raise ValueError(allowed)

    return Kind(parse, (int,), check)


class PerDevice(msgspec.Struct, frozen=True):
    """As many processes on each device."""

    each: int


def processes() -> Kind:
    """A number of processes, or of processes on each GPU."""
    number = integer(least=1, most=1000)

    def parse(value: str) -> int | PerDevice:
        name, colon, each = value.partition(":")
        on_devices = name == "gpu"
        try:
            count: int = number.read((each if colon else "1") if on_devices else value)
        except ValueError:
            raise ValueError("must be a whole number of at least 1 and at most 1000, gpu, or gpu:N") from None
        return PerDevice(count) if on_devices else count

    def check(value: int | PerDevice) -> None:
        number.check(value.each if isinstance(value, PerDevice) else value)

    return Kind(parse, (int, PerDevice), check)


def port() -> Kind:
    """A TCP port; 0 lets the system choose."""
    number = integer(least=0, most=65535)

    def parse(value: str) -> int:
        if value.startswith("tcp://"):
            raise ValueError(
                "must be a whole number of at least 0 and at most 65535"
                " (Kubernetes sets this variable for a Service of the same name: set enableServiceLinks: false)"
            )
        return int(number.parse(value))

    return Kind(parse, (int,), number.check)


def number(*, above: float | None = None, least: float | None = None, most: float | None = None) -> Kind:
    """A finite number, greater than ``above`` or at least ``least``, and at most ``most``."""
    bound = f"greater than {above:g}" if above is not None else f"of at least {least or 0:g}"
    allowed = f"must be a number {bound}" + ("" if most is None else f" and at most {most:g}")

    def parse(value: str) -> float:
        # float() alone would accept "1_0" and digits of other scripts.
        if _NUMBER.fullmatch(value) is None:
            raise ValueError(allowed)
        return float(value)

    def check(value: float) -> None:
        too_small = value <= above if above is not None else value < (least or 0)
        # An int beyond all floats comes from a program; isfinite() would raise OverflowError for it.
        too_large = value > (sys.float_info.max if most is None else most)
        if too_small or too_large or math.isnan(value):
            raise ValueError(allowed)

    return Kind(parse, (float, int), check)


def call_limit() -> Kind:
    """How many calls of a kind an orchestrator takes, as `read_call_limit` reads it."""

    def parse(value: str) -> str:
        read_call_limit(value)
        return value

    return Kind(parse, (str,), read_call_limit)


def read_call_limit(value: str) -> CallLimit:
    """Return how many calls of a kind an orchestrator takes. Raises ValueError that says what is allowed."""
    if value.lower() == "off":
        return UNLIMITED
    read = re.fullmatch(r"([0-9]{1,9})(?:/([0-9]{1,9}(?:\.[0-9]{1,9})?))?", value)
    calls, seconds = (float(read[1]), float(read[2] or 60.0)) if read is not None else (0.0, 0.0)
    if calls < 1 or seconds <= 0:
        raise ValueError("must be a number of calls a minute, such as 100, calls/seconds, such as 100/60, or off")
    return CallLimit(calls, seconds + MARGIN)


def choice(options: type[enum.StrEnum]) -> Kind:
    """One of the values of an enum, ignoring case."""

    def parse(value: str) -> enum.StrEnum:
        for option in options:
            if option.value.lower() == value.lower():
                return option
        raise ValueError("must be one of " + ", ".join(option.value for option in options))

    return Kind(parse, (options,))


def parse_url(value: str) -> str:
    """Return an http(s) URL without its trailing slash. Raises ValueError that says what is allowed."""
    try:
        parts = urlsplit(value)
        valid_port = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("must be a URL such as http://host:8080") from None
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname or not valid_port:
        raise ValueError("must be a URL such as http://host:8080 or https://host/prefix")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password (tokens have variables of their own)")
    if parts.query or parts.fragment or re.search(r"[\s?#\x00-\x1f]", value):
        raise ValueError("must not contain a query, a fragment or spaces")
    check_unicode(value)
    check_host(parts.hostname)
    return value.rstrip("/")


def check_host(value: str) -> None:
    """Raise ValueError for what can be neither an address nor the name of a host, whatever names there are."""
    try:
        value.encode("idna")  # as every lookup does
    except UnicodeError:
        valid = False
    else:
        valid = _NOT_IN_HOSTS.search(value) is None
    if not valid:
        raise ValueError("must have a valid host: an address, or a name whose labels have 1 to 63 characters")


def listening_host() -> Kind:
    """A host to listen at, or ``unix:`` and a path."""

    def check(value: str) -> None:
        if not value.startswith("unix:"):
            check_host(value)
        elif "\0" in value:
            raise ValueError("must be a path after unix:")

    return Kind(str, (str,), check)


def url() -> Kind:
    """An http(s) URL that may carry a path prefix."""
    return Kind(parse_url, (str,))


def path() -> Kind:
    """A path; it need not exist yet."""

    def parse(value: str) -> Path:
        if "\0" in value:
            raise ValueError("must be a path")
        return Path(value)

    return Kind(parse, (Path,))


def object_uris() -> Kind:
    """URIs of objects and prefixes, separated by spaces or commas."""

    def parse(value: str) -> tuple[str, ...]:
        return tuple(value.replace(",", " ").split())

    def check(value: tuple[str, ...]) -> None:
        for each in value:
            uri = S3Uri(each)
            if not uri.scheme or bool(uri.bucket) == (uri.scheme == "file"):
                raise ValueError(f"{presentable(each)} must be a URI such as s3://bucket/prefix/ or file:///directory/")
            parts = uri.key.removesuffix("/").split("/")
            if uri.key and any(unquote(part) in {"", ".", ".."} for part in parts):
                raise ValueError(f"{presentable(each)} must have no segment that is empty, '.' or '..'")

    return Kind(parse, (tuple,), check)


def hosts() -> Kind:
    """Hosts, each with a port or without, separated by spaces or commas."""

    def parse(value: str) -> tuple[str, ...]:
        return tuple(value.replace(",", " ").split())

    def check(value: tuple[str, ...]) -> None:
        for each in value:
            try:
                parts = urlsplit(f"//{each}")
                valid = parts.netloc == each and bool(parts.hostname) and parts.port != 0 and "@" not in each
            except ValueError:
                valid = False
            if not valid or "*" in each or not each.isascii():
                raise ValueError(
                    f"{presentable(each)} must be a host such as files.example.com or files.example.com:8443"
                )

    return Kind(parse, (tuple,), check)


def readable_file() -> Kind:
    """The path of a file that can be read now."""

    def check(value: Path) -> None:
        # Not is_file(): it raises for a name that is too long.
        if not os.path.isfile(value):  # noqa: PTH113
            raise ValueError("must be an existing file")
        if not os.access(value, os.R_OK):
            raise ValueError("must be a readable file")

    return Kind(path().parse, (Path,), check)
