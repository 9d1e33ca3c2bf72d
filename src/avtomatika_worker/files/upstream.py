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
"""Returns the proxy that the environment names for a URL, None for none. Raises ValueError for one of another kind."""


def no_proxy(_url: str) -> None:
    """Name no proxy for any URL."""
