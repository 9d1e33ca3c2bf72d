"""Looks up web hosts, and refuses those at addresses that are not public. Imported when a file is fetched."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""Where the open internet is in IPv6. The rest is private, obsolete, or unassigned, and which is which changes."""

_AZURE: Final = ipaddress.IPv4Address("168.63.129.16")
"""Azure's own service in each of its machines, at an address like any other's."""


class PrivateAddressError(OSError):
    """A host is at an address that is not public."""


class PublicResolver(AbstractResolver):
    """Returns the addresses that are connected to; ``private`` ones as well if that is allowed."""

    def __init__(self, *, private: bool) -> None:
        self._inner = ThreadedResolver()
        self._private = private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Look up a host. Raises `PrivateAddressError` if any of its addresses is not public."""
        found = await self._inner.resolve(host, port, family)
        if not self._private:
            for each in found:
                refuse_private(each["host"])
        return found

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def refuse_private(host: str) -> None:
    """Raise `PrivateAddressError` for an address that is not public; do nothing for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    if not _is_public(address):
        raise PrivateAddressError(f"{host} is not public")


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the open internet, and so is any that it carries inside."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and address != _AZURE
    if address.ipv4_mapped is not None:
        return _is_public(address.ipv4_mapped)
    if address in _NAT64:
        return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    inner = (address.sixtofour, *(address.teredo or ()))
    return address in _UNICAST and address.is_global and all(each is None or _is_public(each) for each in inner)
