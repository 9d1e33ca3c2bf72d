"""The time and the chance that a worker lives with: made once, and handed to all that needs them.

For waiting nothing else is needed than the event loop, which has a time of its own: ``asyncio.sleep``,
``asyncio.timeout`` and ``call_later`` follow it. What is here is the rest: readings of clocks, and random numbers. A
simulation hands in another world, and an event loop of the same time.
"""

from __future__ import annotations

import base64
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)  # Linux


@dataclass(frozen=True, slots=True)
class World:
    """Three clocks, in seconds, and a source of random numbers; all may be used from any thread.

    ``monotonic`` is the event loops' time. ``steady`` goes on while the machine sleeps, where there is such a clock;
    nobody sets either of them. ``wall`` is Unix time, as far as this machine knows it. ``random`` is the operating
    system's: nonces come from it.
    """

    monotonic: Callable[[], float] = time.monotonic
    steady: Callable[[], float] = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)
    wall: Callable[[], float] = time.time
    random: random.Random = field(default_factory=random.SystemRandom)

    def uuid(self) -> str:
        """Return a random UUID."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def token(self, size: int) -> str:
        """Return ``size`` random bytes as text that suits URLs."""
        return base64.urlsafe_b64encode(self.random.randbytes(size)).rstrip(b"=").decode()


REAL: Final = World()
"""The world outside of simulations."""
