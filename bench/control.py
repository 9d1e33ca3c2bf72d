"""The harness's side of the stub: starts it, says what to hand out, reads what it counted."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from typing import Any, Final

from bench.sides import ROOT, Placement, free_port, start_process

PLENTY: Final = 1_000_000_000
"""More tasks than any scenario takes."""


class StubControl:
    """Talks to the stub."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def new(self, **plan: Any) -> None:
        """Start over: forget everything, hand out by ``plan``."""
        self._post("new", plan)

    def plan(self, **plan: Any) -> None:
        """Hand out by another plan."""
        self._post("plan", plan)

    def reset(self) -> None:
        """Count from zero."""
        self._post("reset", {})

    def stats(self) -> dict[str, Any]:
        """Return what was counted."""
        return self._post("stats", {})

    def wait_until(self, name: str, least: float, timeout: float) -> dict[str, Any]:
        """Wait until a figure has come that far, and return all. Raises RuntimeError when it does not."""
        until = time.monotonic() + timeout
        while True:
            stats = self.stats()
            if stats[name] >= least:
                return stats
            if time.monotonic() > until:
                raise RuntimeError(f"{name} is {stats[name]} after {timeout:.0f} s, not {least}")
            time.sleep(0.02)

    def _post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/_bench/{what}", json.dumps(body).encode(), method="POST")  # noqa: S310 - our own stub
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
        return found


@contextlib.contextmanager
def stub_running(placement: Placement) -> Generator[StubControl]:
    """Run the stub on its cores."""
    port = free_port()
    process = start_process(
        [sys.executable, "-m", "bench.stub", str(port)], {"PYTHONPATH": str(ROOT)}, placement.stub, "stub"
    )
    control = StubControl(port)
    try:
        for attempt in range(100):
            try:
                control.stats()
                break
            except urllib.error.URLError:
                if attempt == 99:
                    raise RuntimeError(f"the stub does not start: {process.tail()}") from None
                time.sleep(0.05)
        yield control
    finally:
        process.stop()
