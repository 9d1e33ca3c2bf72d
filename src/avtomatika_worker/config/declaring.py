"""Declares a setting: a dataclass field that carries the facts about its variable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, field
from types import MappingProxyType
from typing import Any, Final

import msgspec

from avtomatika_worker.config.kinds import Kind

SPEC: Final = "avtomatika_worker.setting"
"""The key of a field's metadata."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about a setting besides its value.

    ``unset`` says in words what an unset variable means, if the default value itself does not show it.
    """

    variable: str
    doc: str
    kind: Kind
    unit: str = ""
    secret: bool = False
    unset: str = ""


def nothing() -> Mapping[str, Any]:
    """Return an empty, immutable mapping: the default of a mapping setting."""
    return MappingProxyType({})


def setting(
    variable: str,
    kind: Kind,
    doc: str,
    *,
    default: Any = MISSING,
    unit: str = "",
    secret: bool = False,
    unset: str = "",
) -> Any:
    """Make a dataclass field that carries its ``Setting``."""
    spec = Setting(variable=variable, doc=doc, kind=kind, unit=unit, secret=secret, unset=unset)
    if default is nothing:
        return field(default_factory=nothing, repr=not secret, metadata={SPEC: spec})
    return field(default=default, repr=not secret, metadata={SPEC: spec})
