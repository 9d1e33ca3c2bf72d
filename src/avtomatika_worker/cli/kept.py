"""What a process under ``--reload`` leaves for the next one, so that an open page and other workers find it again."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Final, NamedTuple

_VARIABLE: Final = "AVTOMATIKA_WORKER_KEPT"


class Address(NamedTuple):
    """Where the orchestrator of ``worker dev`` listens, and the token for its workers."""

    port: int
    token: str


@contextlib.contextmanager
def kept_for_processes() -> Generator[dict[str, str]]:
    """Yield the environment for processes, one after another, that use `former_address` and `keep_address`."""
    descriptor, name = tempfile.mkstemp(prefix="worker-reload-")  # for this user alone: it holds a token
    os.close(descriptor)
    try:
        yield {**os.environ, _VARIABLE: name}
    finally:
        Path(name).unlink(missing_ok=True)


def former_address() -> Address | None:
    """Return the address that the process before this one had, or None."""
    if not (name := os.environ.get(_VARIABLE)):
        return None
    try:
        return Address(*json.loads(Path(name).read_text("utf-8")))
    except (OSError, ValueError, TypeError):  # it is the first
        return None


def keep_address(address: Address) -> None:
    """Leave an address for the process after this one."""
    if name := os.environ.get(_VARIABLE):
        with contextlib.suppress(OSError):  # then the next has another one
            Path(name).write_text(json.dumps(address), "utf-8")
