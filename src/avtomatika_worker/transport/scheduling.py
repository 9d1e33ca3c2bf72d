"""How the operating system's scheduler treats the HTTP library's thread where it shares a core with the event loop."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator


@contextlib.contextmanager
def threads_that_do_not_preempt() -> Generator[None]:
    """Have threads that are started inside wait for a running one to pause, where they share its core (Linux).

    The HTTP library's thread wakes for every call. Each time it would push aside the event loop that has just made the
    call and has more to make; like this it gets them in one go. On a core of their own such threads run as ever.
    """
    changed = _change("SCHED_OTHER", "SCHED_BATCH")
    try:
        yield
    finally:
        if changed:
            _change("SCHED_BATCH", "SCHED_OTHER")


def _change(before: str, after: str) -> bool:
    """Change this thread's policy, which new threads inherit. A policy that somebody else has chosen stays."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):  # a sandbox forbids it
        if os.sched_getscheduler(0) == getattr(os, before):
            os.sched_setscheduler(0, getattr(os, after), os.sched_param(0))
            return True
    return False
