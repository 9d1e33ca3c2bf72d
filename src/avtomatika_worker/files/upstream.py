"""The proxy of the environment, as this package sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol


class UpstreamProxy(Protocol):
    """A proxy of the environment."""

    @property
    def url(self) -> str:
        """Its ``http(s)://`` URL, without credentials."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers for it."""
        ...


ProxyFor = Callable[[str], UpstreamProxy | None]
"""Returns the environment's proxy for a URL, or None. Raises ValueError for an unsupported kind of proxy."""


def no_proxy(_url: str) -> None:
    """Return no proxy for any URL."""
