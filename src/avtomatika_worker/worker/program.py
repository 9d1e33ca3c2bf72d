"""Runs a worker as a process: its event loop, signals and exit code."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import gc
import logging
import queue
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NoReturn, Protocol

from avtomatika_worker._atexit import (
    LAST_WORDS,
    attempt_within,
    exit_at_once,
    exit_in_time,
    exit_without_threads,
    write_error,
)
from avtomatika_worker._boundaries import attempted
from avtomatika_worker._signals import hear_again, hear_signals, ignore_signals
from avtomatika_worker.config import Settings
from avtomatika_worker.errors import ConfigError, ProcessStartError, ResourceError, SkillDefinitionError, SkillLoadError
from avtomatika_worker.execution.containment import contained_loop, run_to_end
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.supervisor import Ending
from avtomatika_worker.worker.assembly import loop_factory

_log: Final = logging.getLogger("avtomatika_worker")

EXIT_OK: Final = 0
"""An orderly shutdown."""

EXIT_CRASHED: Final = 1
"""A part of the worker crashed; the traceback is in the log."""

EXIT_USAGE: Final = 2
"""The configuration, the command or a skill is wrong; nothing was started."""

EXIT_FORCED: Final = 3
"""A second signal cut the shutdown short."""

EXIT_LOST: Final = 4
"""Results were lost: they could neither be delivered nor stored. The log names each."""

_STRAGGLERS_TIMEOUT: Final = 1.0
"""Seconds that abandoned skills and their threads get once more to end."""

STEPS_LIMIT: Final = 25.0
"""The most seconds for the steps of a shutdown without limits of their own (docs/operations.md)."""

FORCED_LIMIT: Final = 5.0
"""Seconds that a shortened shutdown may take; then the process ends by itself."""

_LONGEST_SLEEP: Final = 1e9
"""Seconds, about 30 years: waiting for much longer raises OverflowError."""

_KEEP_EVERY: Final = 1.0
"""Seconds between checks of whether the worker still handles the signals."""

_PATIENCE: Final = 2
"""Signals that shut down gracefully, the second one faster; a third ends the process at once."""

_HANG_UP: Final[int | None] = getattr(signal, "SIGHUP", None)  # Windows has none
"""Always asks for a graceful shutdown: it never cuts one short."""

_GC_THRESHOLD: Final = 5_000
"""New objects after which the youngest generation is collected; Python's default of 700 is a few tasks."""

USAGE_ERRORS: Final = (ConfigError, SkillDefinitionError, SkillLoadError, ResourceError, ProcessStartError)
_USER_THREADS: Final = ("skill", "asyncio", "usage", "resource", "model")


class Stoppable(Protocol):
    """The program of a process."""

    def request_shutdown(self) -> None:
        """Begin to shut down; asked a second time, cut it short."""
        ...

    def announce_draining(self) -> None:
        """Announce the shutdown that follows. May be called from any thread."""
        ...

    @property
    def ending(self) -> Ending:
        """How the last run ended."""
        ...

    @property
    def shutdown_limit(self) -> float:
        """Limit for the shutdown, in seconds. May be read from any thread."""
        ...

    def rescue(self) -> None:
        """Write to disk what is not there yet. May be called from any thread, after the loops have stopped."""
        ...


def longest_shutdown(skills: SkillRegistry, settings: Settings) -> float:
    """Return the limit for the shutdown, in seconds, with tasks that do not end by themselves."""
    grace = max((skill.options.cancel_grace for skill in skills), default=0.0)
    return min(settings.shutdown_timeout + grace + STEPS_LIMIT, _LONGEST_SLEEP)


def run_process(worker: Stoppable, main: Callable[[], Awaitable[None]]) -> NoReturn:
    """Run ``main`` until it ends, signals asking ``worker`` to shut down, and exit the process."""
    stopping = _Stopping(worker)
    hear_signals(stopping.heard)
    atexit.register(ignore_signals)  # their handlers end before Python does, and by then the code is known
    loop = contained_loop(loop_factory())
    asyncio.set_event_loop(loop)
    # asyncio's own would be waited for when the loop is closed, however long a skill keeps one of its threads.
    threads = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(threads)
    code = EXIT_OK
    try:
        run_to_end(loop, stopping.run(main))
    except USAGE_ERRORS as error:
        explain(error)
        code = EXIT_USAGE
    except Exception:  # noqa: BLE001 - the last boundary: reported with its traceback and the exit code
        _log.critical("the worker crashed: this is a bug in it", exc_info=True, extra={"action": "crashed"})
        code = EXIT_CRASHED
    if code == EXIT_OK:
        code = exit_code(worker.ending)
    hear_signals(lambda _number, _times: exit_at_once(code or EXIT_FORCED))
    ended = _end_stragglers(loop)
    threads.shutdown(wait=False, cancel_futures=True)
    if not ended:
        exit_without_threads(code)
    loop.close()
    leave(code)


def leave(code: int) -> NoReturn:
    """Exit; without waiting for threads of users' code that do not end, for Python would wait for them indefinitely."""
    if _threads_end():
        exit_in_time(code)
    exit_without_threads(code)


class _Stopping:
    """Turns signals into shutdown requests, and ends the process if the worker does not."""

    def __init__(self, worker: Stoppable) -> None:
        self._worker = worker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = 0
        self._limits: queue.SimpleQueue[float] = queue.SimpleQueue()

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run ``main``, and apply signals to it from now on."""
        spare_the_collector()
        # From the beginning: when a signal comes, the system may not give us another thread.
        threading.Thread(target=self._have_patience, name="patience", daemon=True).start()
        self._loop = asyncio.get_running_loop()
        self._keep_signals()
        try:
            await main()
        finally:
            self._next_look.cancel()

    def _keep_signals(self) -> None:
        """Take signals back from libraries and skills that handle them, now and every second.

        Nothing could end the worker in order any more.
        """
        if hear_again():
            _log.warning(
                "a handler for SIGINT, SIGTERM or SIGHUP was set after the start; the worker needs them and has taken"
                " them back",
                extra={"action": "signals_taken_back"},
            )
        self._next_look = asyncio.get_running_loop().call_later(_KEEP_EVERY, self._keep_signals)

    def heard(self, number: int, _times: int) -> None:
        """Handle a signal. Called in the thread that receives them."""
        if self._loop is None:
            exit_at_once(EXIT_OK)  # nothing has begun
        if self._asked and number == _HANG_UP:  # a terminal that is closed sends several
            return
        times = self._asked + 1
        if times > _PATIENCE:
            end_by_force(self._worker)
        self._asked = times
        with contextlib.suppress(RuntimeError):  # the loop has been closed in this moment
            self._loop.call_soon_threadsafe(self._worker.request_shutdown)
        self._limits.put(FORCED_LIMIT if times > 1 else self._worker.shutdown_limit)
        # From here, as a skill may block the main loop; last, so that a failure in it keeps nothing else from coming.
        self._worker.announce_draining()

    def _have_patience(self) -> None:
        """End the process when the limit that the newest signal has set is over."""
        limit = self._limits.get()
        while True:
            try:
                limit = self._limits.get(timeout=limit)
            except queue.Empty:
                attempt_within(LAST_WORDS, functools.partial(_report_given_up, limit))
                end_by_force(self._worker)


def _report_given_up(seconds: float) -> None:
    _log.error(
        "shutting down takes longer than %g s: what holds it up is left behind",
        seconds,
        extra={"action": "shutdown_given_up"},
    )


def end_by_force(worker: Stoppable) -> NoReturn:
    """End the process, although its loop does not: what matters goes to disk, from here."""
    attempt_within(FORCED_LIMIT, lambda: attempted(worker.rescue, _report_not_rescued))
    exit_at_once(EXIT_LOST if worker.ending.lost else EXIT_FORCED)


def _report_not_rescued(error: Exception) -> None:
    _log.critical(
        "results may not be on disk; this is a bug in the worker", exc_info=error, extra={"action": "rescue_failed"}
    )


def exit_code(ending: Ending) -> int:
    """Return the exit code of a worker that ended without a crash."""
    if ending.lost:
        return EXIT_LOST
    return EXIT_FORCED if ending.forced else EXIT_OK


def _end_stragglers(loop: asyncio.AbstractEventLoop) -> bool:
    """Return what `_stragglers_end` does; False where the loop cannot run any more, as without descriptors."""
    # The exit code is known, and nothing may hold it up now.
    return attempted(lambda: run_to_end(loop, _stragglers_end()), _left_behind)


def _left_behind(error: Exception) -> bool:
    _log.warning("what still runs is left behind", exc_info=error, extra={"action": "exit_cut"})
    return False


async def _stragglers_end() -> bool:
    """Cancel the skills still running; return whether they have ended now."""
    stragglers = asyncio.all_tasks() - {asyncio.current_task()}
    for task in stragglers:
        task.cancel()
    if stragglers:
        await asyncio.wait(stragglers, timeout=_STRAGGLERS_TIMEOUT)
    return all(task.done() for task in stragglers)


def explain(error: Exception) -> None:
    """Write the problems of a configuration or a skill, one per line, after everything logged so far."""
    lines = [f"worker: {each}" for each in (error.problems if isinstance(error, ConfigError) else (str(error),))]
    if error.__cause__ is not None and isinstance(error, SkillLoadError | ResourceError):
        from avtomatika_worker.execution.tracebacks import folded_traceback

        lines.append(folded_traceback(error.__cause__))
    for handler in logging.root.handlers:
        attempted(handler.flush, lambda _: None)  # handlers are users' code
    write_error("\n".join(lines))


def spare_the_collector() -> None:
    """Make the garbage collector skip the permanent objects loaded so far, and run less often.

    It stops the whole process while it runs (measured with the default thresholds: 30 ms every 2,300 tasks).
    """
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


def _threads_end() -> bool:
    """Return whether the threads in which users' code ran have ended, or do so in a moment."""
    until = time.monotonic() + _STRAGGLERS_TIMEOUT
    threads = [each for each in threading.enumerate() if each.name.startswith(_USER_THREADS)]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
