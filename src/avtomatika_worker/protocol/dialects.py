"""The differences between the protocol versions of released orchestrators (RXON.md, the tables).

A `Dialect` is a row of facts. Code checks the facts (``dialect.draining_status``), never the version number.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_VERSION = re.compile(r"1\.0b([0-9]{1,4})")


class Dialect(msgspec.Struct, frozen=True):
    """The facts of one protocol version."""

    version: str
    """The value of ``X-RXON-Version``."""

    array_nulls_kept: bool = False
    """Whether nulls inside arrays are signed (1.0b12+) or removed."""

    integral_floats: bool = True
    """Whether ``1.0`` is signed as ``1`` (1.0b10+) or kept as a float."""

    max_nesting: int = 100
    """How many levels below the message's root a value may be."""

    skill_names: bool = False
    """``available_skills`` and ``hot_skills`` as names, in messages and in the poll's query (1.0b9+)."""

    draining_status: bool = False
    """Whether "draining" keeps new tasks away (1.0b10+); older versions know only "busy" and "offline"."""

    origin_task_id: bool = False
    """Events may name the task they come from (1.0b10+)."""

    refresh_tokens: bool = False
    """``/auth/token/refresh`` exists (1.0b13+)."""

    costs: bool = False
    """Results may carry ``costs`` (1.0b15+)."""

    signed_tasks: bool = False
    """Tasks carry ``sig`` if the orchestrator has a secret key (1.0b17+)."""

    signature_key_dropped: bool = False
    """Whether a top-level ``_signature`` is excluded from signing (1.0b16+)."""

    replay_nonces: bool = False
    """The same signed bytes are refused a second time (orchestrator 1.0b29, protocol 1.0b16+)."""


# Nesting is unlimited up to 1.0b9; the limit is what recursion here can bear.
_B7 = Dialect("1.0b7", integral_floats=False, max_nesting=200)
_B9 = msgspec.structs.replace(_B7, version="1.0b9", skill_names=True)
_B10 = msgspec.structs.replace(
    _B9, version="1.0b10", integral_floats=True, max_nesting=100, draining_status=True, origin_task_id=True
)
_B11 = msgspec.structs.replace(_B10, version="1.0b11")
_B12 = msgspec.structs.replace(_B11, version="1.0b12", array_nulls_kept=True)
_B13 = msgspec.structs.replace(_B12, version="1.0b13", refresh_tokens=True)
_B14 = msgspec.structs.replace(_B13, version="1.0b14")
_B15 = msgspec.structs.replace(_B14, version="1.0b15", costs=True)
_B16 = msgspec.structs.replace(_B15, version="1.0b16", replay_nonces=True, signature_key_dropped=True)
_B17 = msgspec.structs.replace(_B16, version="1.0b17", max_nesting=30, signed_tasks=True)

DIALECTS: Final = (_B7, _B9, _B10, _B11, _B12, _B13, _B14, _B15, _B16, _B17)
"""Every known dialect, oldest first. 1.0b7 and 1.0b8 are the same."""

OLDEST: Final = _B7
"""The dialect with the deepest nesting: what it refuses, all do."""

NEWEST: Final = _B17

NEUTRAL: Final = msgspec.structs.replace(_B17, array_nulls_kept=False)
"""The form of the first registration, before the version is known: every release accepts it.

No nulls anywhere, no floats without a fraction, the strictest nesting. It announces the newest version.
"""


class Choice(msgspec.Struct, frozen=True):
    """A dialect and how it was found: ``exact`` is false for a version newer than all known ones, or unreadable."""

    dialect: Dialect
    exact: bool


def choose(version: str) -> Choice:
    """Choose the dialect for an announced version.

    A version between two known ones gets the older one's dialect under its own name, an older version the oldest
    dialect, and a newer or unreadable one the newest.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        return Choice(NEWEST, exact=False)
    number = int(match[1])
    older = [dialect for dialect in DIALECTS if _number(dialect) <= number]
    base = older[-1] if older else DIALECTS[0]
    if base is NEWEST and number != _number(NEWEST):
        return Choice(NEWEST, exact=False)
    return Choice(base if base.version == version else msgspec.structs.replace(base, version=version), exact=True)


def _number(dialect: Dialect) -> int:
    return int(dialect.version.removeprefix("1.0b"))
