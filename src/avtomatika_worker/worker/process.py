"""A worker as a process: its event loop, its signals, its exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Final, NoReturn, Protocol

from avtomatika_worker._atexit import exit_at_once
from avtomatika_worker.errors import ConfigError, ProcessStartError, ResourceError, SkillDefinitionError, SkillLoadError
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
"""Seconds that skills which were given up get once more to end, before the process ends without them."""

_GC_THRESHOLD: Final = 5_000
"""New objects after which the youngest generation is looked through; Python's own 700 is a few tasks."""

USAGE_ERRORS: Final = (ConfigError, SkillDefinitionError, SkillLoadError, ResourceError, ProcessStartError)
_USER_THREADS: Final = ("skill", "usage", "resource")
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stoppable(Protocol):
    """What a process runs."""

    def request_shutdown(self) -> None:
        """Begin to shut down; asked a second time, cut it short."""
        ...

    @property
    def ending(self) -> Ending:
        """How the last run ended."""
        ...


def run_process(worker: Stoppable, main: Callable[[], Awaitable[None]]) -> NoReturn:
    """Run ``main`` until it ends, SIGINT and SIGTERM asking ``worker`` to shut down, and exit the process."""
    code = EXIT_OK
    runner = asyncio.Runner(loop_factory=loop_factory())
    try:
        runner.run(_main(worker, main))
    except USAGE_ERRORS as error:
        explain(error)
        code = EXIT_USAGE
    except Exception:  # noqa: BLE001 - the last boundary: told with its traceback and the exit code
        _log.critical("the worker crashed: this is a bug in it", exc_info=True, extra={"action": "crashed"})
        code = EXIT_CRASHED
    if code == EXIT_OK:
        code = exit_code(worker.ending)
    if not runner.run(_stragglers_end()):
        exit_at_once(code)
    ignore_late_signals()
    runner.close()
    _exit(code)


def ignore_late_signals() -> None:
    """Let SIGINT and SIGTERM change nothing any more: their handlers end before Python does, and the code is known."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)


def exit_code(ending: Ending) -> int:
    """Return the exit code that tells how a worker without a crash ended."""
    if ending.lost:
        return EXIT_LOST
    return EXIT_FORCED if ending.forced else EXIT_OK


async def _stragglers_end() -> bool:
    """Cancel what still runs, skills that did not stop; return whether they have ended now."""
    stragglers = asyncio.all_tasks() - {asyncio.current_task()}
    for task in stragglers:
        task.cancel()
    if stragglers:
        await asyncio.wait(stragglers, timeout=_STRAGGLERS_TIMEOUT)
    return all(task.done() for task in stragglers)


def explain(error: Exception) -> None:
    """Write what is wrong with a configuration or a skill, a line for each problem."""
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    for problem in problems:
        print(f"worker: {problem}", file=sys.stderr)
    if error.__cause__ is not None and isinstance(error, SkillLoadError | ResourceError):
        import traceback

        traceback.print_exception(error.__cause__)


def spare_the_collector() -> None:
    """Have Python's garbage collector leave out what is loaded by now, for it stays, and look for more less often.

    It stops the whole process meanwhile (measured with its own thresholds: 30 ms every 2,300 tasks).
    """
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


async def _main(worker: Stoppable, main: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    spare_the_collector()

    def ask(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(worker.request_shutdown)

    for number in _STOP_SIGNALS:
        try:
            loop.add_signal_handler(number, worker.request_shutdown)
        except NotImplementedError:  # Windows
            signal.signal(number, ask)
    _drain_on_hangup(loop, worker)
    await main()


def _drain_on_hangup(loop: asyncio.AbstractEventLoop, worker: Stoppable) -> None:
    """Have SIGHUP shut down in order, once: another one cuts nothing short. Under nohup it stays ignored."""
    if sys.platform == "win32" or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return

    def drain() -> None:
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        worker.request_shutdown()

    loop.add_signal_handler(signal.SIGHUP, drain)


def _exit(code: int) -> NoReturn:
    """Exit; at once when a thread of user code does not end, for Python would wait for it for ever."""
    if any(thread.name.startswith(_USER_THREADS) and thread.is_alive() for thread in threading.enumerate()):
        exit_at_once(code)
    sys.exit(code)
