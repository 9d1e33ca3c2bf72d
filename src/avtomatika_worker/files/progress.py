"""Progress reports of long transfers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

_log: Final = logging.getLogger("avtomatika_worker.files")

Notify = Callable[[str], None]
"""Receives, on the main loop, the progress of a long transfer."""

NOTICE_AFTER: Final = 5.0
"""Seconds between the progress reports of a transfer."""

_MIB: Final = 1024 * 1024


class Progress:
    """A transfer's progress. It is reported every ``after`` seconds, and never earlier."""

    def __init__(self, what: str, uri: str, total: int, notify: Notify, *, after: float) -> None:
        self.done: int = 0
        self._what = what
        self._uri = uri
        self._total = total
        self._notify = notify
        self._after = after
        self._began = self._reported = time.monotonic()

    def add(self, size: int) -> None:
        """Count transferred bytes."""
        self.done += size
        now = time.monotonic()
        if now - self._reported >= self._after and self.done < self._total:
            self._reported = now
            text = f"{self._what} of {self._uri}: {self.done / _MIB:,.0f} of {self._total / _MIB:,.0f} MiB"
            _log.info("%s", text, extra={"action": "transfer_progress", **self._facts()})
            self._notify(text)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        seconds = time.monotonic() - self._began
        slow = seconds >= self._after
        extra = {"action": "transfer_done", **self._facts()}
        args = self._what, self._uri, self.done, seconds
        _log.log(logging.INFO if slow else logging.DEBUG, "%s of %s: %d bytes in %.2f s", *args, extra=extra)

    def _facts(self) -> dict[str, object]:
        return {"transfer": self._what, "uri": self._uri, "bytes": self.done, "total": self._total}
