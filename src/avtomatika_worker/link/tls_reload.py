"""Reloads TLS files, since certificates are renewed while a worker runs. Runs on the link thread."""

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
    """Checks the files every ``interval`` seconds until cancelled. New connections use new files; open ones continue.

    It must be made before the links are opened: they use the files as they are at that time.
    """

    def __init__(self, tls: TlsFiles, links: Sequence[Link], interval: float) -> None:
        self._tls = tls
        self._links = links
        self._interval = interval
        self._taken: tuple[bytes | None, ...] = tls.fingerprint()
        self._looked_at: tuple[bytes | None, ...] = self._taken

    async def run(self) -> None:
        """Reopen the links whenever the files have changed. Unusable files are reported and not used."""
        while True:
            await asyncio.sleep(self._interval)
            self.look()

    def look(self) -> None:
        """Check the files once."""
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
            text = "the TLS files have changed but cannot be used; the previous ones stay in use: %s"
            _log.error(text, error, extra={"action": "tls_not_reloaded"})
            return False
        _log.info("the TLS files have changed; new connections use them", extra={"action": "tls_reloaded"})
        return True
