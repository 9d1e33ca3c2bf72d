"""Isolates bugs in the code for one orchestrator from other orchestrators and from running tasks.

There are two boundaries. A call to an orchestrator returns a value or raises a `WorkerError`, and a link's service is
restarted when it fails. Either way the traceback is logged once, since the bug is in the worker.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from avtomatika_worker.errors import ConnectionFailedError, WorkerError
from avtomatika_worker.observability.log_throttle import LogThrottle
from avtomatika_worker.policy.restarts import Restarts
from avtomatika_worker.world import World

_log: Final = logging.getLogger("avtomatika_worker.link")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Contained(Protocol):
    """A link, as far as this module needs it."""

    faults: LogThrottle
    world: World

    @property
    def url(self) -> str:
        """The orchestrator's base URL."""
        ...

    def contact_broken(self) -> None:
        """Record that the worker has to register again."""
        ...


_C = TypeVar("_C", bound=Contained)


def contained(
    call: Callable[Concatenate[_C, _P], Awaitable[_T]],
) -> Callable[Concatenate[_C, _P], Coroutine[Any, Any, _T]]:
    """Make a call raise only `WorkerError`: any other exception counts as a failed connection."""

    @functools.wraps(call)
    async def within(link: _C, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await call(link, *args, **kwargs)
        except WorkerError:
            raise
        except Exception as error:
            link.contact_broken()
            _report(link, f"the call {call.__name__}", error)
            raise ConnectionFailedError(f"internal error during the call: {type(error).__name__}") from error

    return within


async def keep_running(link: Contained, service: Callable[[], Awaitable[None]]) -> None:
    """Run a service of one orchestrator until it returns. Restart it, after a delay, whenever it fails."""
    restarts = Restarts()
    while True:
        began = link.world.monotonic()
        try:
            await service()
        except Exception as error:  # noqa: BLE001 - whatever it is, the services of other orchestrators continue
            link.contact_broken()
            delay = restarts.ended(link.world.monotonic() - began, link.world.random.random())
            _report(link, f"{getattr(service, '__qualname__', 'a service')} (restarting in {delay:.1f} s)", error)
            await asyncio.sleep(delay)
        else:
            return


def _report(link: Contained, what: str, error: Exception) -> None:
    kind = type(error), [each[1] for each in traceback.walk_tb(error.__traceback__)][-1]  # where it was raised
    link.faults.log(
        _log,
        logging.ERROR,
        "%s: %s failed; this is a bug in the worker; other orchestrators and tasks are not affected",
        link.url,
        what,
        action="link_failed",
        kind=kind,
        error=error,
    )
