"""Takes new TLS files for new connections: certificates are renewed while a worker runs. Runs in the link thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from avtomatika_worker.errors import ConfigError
from avtomatika_worker.link.link import Link
from avtomatika_worker.transport.tls import TlsFiles

_log: Final = logging.getLogger("avtomatika_worker.link")


class TlsReload:
    """Checks the files every ``interval`` seconds, until cancelled. Calls in flight finish on their connections.

    Make it before the links are opened: what the files hold by then is what the links know.
    """

    def __init__(self, tls: TlsFiles, links: Sequence[Link], interval: float) -> None:
        self._tls = tls
        self._links = links
        self._interval = interval
        self._taken: tuple[bytes | None, ...] = tls.fingerprint()
        self._looked_at: tuple[bytes | None, ...] = self._taken

    async def run(self) -> None:
        """Reopen the links if the files have changed; unusable files are reported, and nothing changes."""
        while True:
            await asyncio.sleep(self._interval)
            self.look()

    def look(self) -> None:
        """Look once."""
        found = self._tls.fingerprint()
        if found in {self._taken, self._looked_at}:
            return
        self._looked_at = found
        if self._take():
            self._taken = found

    def _take(self) -> bool:
        try:
            if problems := self._tls.problems():
                raise ConfigError(problems)
            for link in self._links:
                link.reopen()
        except (ConfigError, OSError) as error:
            text = "the TLS files have changed and cannot be used, so that the former ones are: %s"
            _log.error(text, error, extra={"action": "tls_not_reloaded"})
            return False
        _log.info("the TLS files have changed; new connections use them", extra={"action": "tls_reloaded"})
        return True
