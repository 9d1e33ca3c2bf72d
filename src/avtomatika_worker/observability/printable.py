"""Makes foreign texts safe for a terminal or a log: their content is shown, but has no effect."""

from __future__ import annotations

import re
from typing import Final

# All control characters except tab and line feed; other line separators; and marks that reverse the text's order.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    "|[\U000e0000-\U000e007f\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return a text with its control characters, bidirectional marks and invisible characters escaped.

    Tabs and line feeds stay.
    """
    if text.isprintable():  # then it is safe, and the check is cheap
        return text
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def printable_json(text: str) -> str:
    """Return a JSON text of the same value with those characters escaped the JSON way."""
    return text if text.isprintable() else _UNSAFE.sub(_json_escape, text)


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
