"""Finds the proxy that the environment names."""

from __future__ import annotations

import base64
import os
import sys
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

_SPOKEN: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. Its URL, which errors repeat, does not contain the credentials."""

    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for an ``http(s)://`` URL (``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``).

    Credentials come from the proxy's URL; ``~/.netrc`` is not read. Raises ValueError, which names the variable and
    not its value, for a proxy that is not ``http(s)://`` and a host.
    """
    if not _may_name_any():
        return None
    from urllib.request import getproxies, proxy_bypass  # takes 1 MiB and 9 ms: imported only if it may find one

    parts = urlsplit(url)
    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    named = getproxies()
    kind = parts.scheme if named.get(parts.scheme) else "all"
    text = named.get(kind, "").strip()
    if not text:
        return None
    proxy = _read(text, f"{kind.upper()}_PROXY")
    credentials, _, place = proxy.netloc.rpartition("@")
    if not credentials:
        return Proxy(f"{proxy.scheme}://{place}")
    basic = base64.b64encode(unquote(credentials).encode()).decode()
    return Proxy(f"{proxy.scheme}://{place}", {"Proxy-Authorization": f"Basic {basic}"})


def _read(text: str, variable: str) -> SplitResult:
    """Return the parts of a proxy's URL. Raises ValueError, which does not show it: it may hold a password."""
    try:
        proxy = urlsplit(text if "://" in text else f"http://{text}")
        valid = proxy.port != 0 and bool((proxy.hostname or "").encode("idna"))
    except ValueError:  # UnicodeError is one
        raise ValueError(f"{variable} is no URL of a proxy, such as http://host:8080") from None
    if proxy.scheme not in _SPOKEN:
        raise ValueError(f"{variable} names a {proxy.scheme}:// proxy; only http(s):// ones are supported")
    if not valid or not text.isprintable() or " " in text:
        raise ValueError(f"{variable} is no URL of a proxy, such as http://host:8080")
    return proxy


def _may_name_any() -> bool:
    """Return whether a proxy may be named: some systems have settings of their own for that."""
    return sys.platform in {"darwin", "win32"} or any(name.lower().endswith("_proxy") for name in os.environ)
