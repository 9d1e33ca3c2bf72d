"""The table of all variables, for the documentation."""

from __future__ import annotations

from dataclasses import MISSING, Field
from typing import Any

import msgspec

from avtomatika_worker.config.declaring import Setting
from avtomatika_worker.config.settings import EXTRA_PREFIX, setting_fields


class SettingDoc(msgspec.Struct, frozen=True):
    """One row of the table of variables. ``in_words``: ``default`` is a description, not the value."""

    variable: str
    description: str
    default: str
    in_words: bool = False


def describe() -> tuple[SettingDoc, ...]:
    """Return the table of all variables. Descriptions may contain Markdown code spans."""
    rows = [_describe(each, spec) for each, spec in setting_fields().values()]
    extra = "Custom capability to announce under `<NAME>` in lower case; parsed as JSON if it is valid JSON."
    return (*rows, SettingDoc(f"{EXTRA_PREFIX}<NAME>", extra, ""))


def _describe(each: Field[Any], spec: Setting) -> SettingDoc:
    default = spec.unset or _default_text(each.default)
    unit = f" ({spec.unit})" if spec.unit else ""
    return SettingDoc(spec.variable, spec.doc.rstrip(".") + unit + ".", default, in_words=bool(spec.unset))


def _default_text(value: Any) -> str:
    if value in {None, MISSING, ()}:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
