"""Extras: how to install the packages of one that are missing."""

from __future__ import annotations

import re
from typing import Final

_DISTRIBUTION: Final = "avtomatika-worker"


def install_hint(extra: str) -> str:
    """Return how to install ``extra``, for the end of a message.

    The command names the extra's packages as this distribution declares them. Naming the distribution instead would
    fetch another product from the public index.
    """
    packages = " ".join(f'"{each}"' for each in _packages(extra))
    return f"install the extra [{extra}]" + (f": pip install {packages}" if packages else "")


def _packages(extra: str) -> list[str]:
    from importlib.metadata import PackageNotFoundError, requires  # takes 1.4 MiB, and 12 ms, for a message

    try:
        declared = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # running from the sources, without an installation
        return []
    found = (re.fullmatch(rf"([^;]+?)\s*; extra == '{re.escape(extra)}'", each.replace('"', "'")) for each in declared)
    return [match[1] for match in found if match]
