"""What a task costs this worker itself: CPU time of the main thread with the HTTP library replaced by a stand-in.

For work on the hot path: less noisy than the real thing, and a profiler sees only our own code. Run as
``python -m bench.core [SLOTS]``; with ``--profile`` it prints where a task's time goes, module by module (the profiler
makes all of it three times as long, calls of small functions most). With ``--result`` it prints what a long result
costs between the skill's return and the signed request, in calls of ``orjson.dumps`` of the same data with sorted keys.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import itertools
import logging
import math
import os
import pstats
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final, TypedDict

import orjson

from avtomatika_worker import Worker
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.encoding import encoded
from avtomatika_worker.execution.execution import Pipeline
from avtomatika_worker.execution.injection import injectables
from avtomatika_worker.execution.report import build_result, sendable
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.protocol.codec import Codec, Request
from avtomatika_worker.protocol.dialects import NEWEST
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.skills.skill import Skill, define
from avtomatika_worker.tasks.dedup import RecentResults
from avtomatika_worker.worker import make_links
from avtomatika_worker.worker.program import spare_the_collector
from bench.stub import TOKEN

_ROUNDS: Final = 5
_TASK: Final = (
    '{{"job_id":"{0}","priority":0,"step":1,"task_id":"{0}","timestamp":1795459067,"params":{{"text":"xxxxx"}},'
    '"tracing_context":{{}},"type":"echo"}}'
)


class StandIn:
    """Answers every call after one turn of the event loop, as an orchestrator full of tasks would."""

    done: int = 0
    _ids = itertools.count()

    def __init__(self, *_: object, **__: object) -> None:
        self._second = 0
        self._headers: dict[str, str] = {}

    def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def send(self, request: Request, headers: Mapping[str, str], timeout: float) -> Response:
        """Answer."""
        del headers, timeout
        await asyncio.sleep(0)
        if (second := int(time.time())) != self._second:
            self._second = second
            self._headers = {"x-rxon-version": "1.0b17", "date": formatdate(second, usegmt=True)}
        if "/tasks/next" in request.path:
            task_id = f"{next(StandIn._ids):08x}-0000-4000-8000-000000000000"
            return Response(200, self._headers, _TASK.format(task_id).encode())
        if request.path.endswith("/result"):
            StandIn.done += 1
            return Response(200, self._headers, b'{"status":"accepted","transition":"success_transition"}')
        return Response(200, self._headers, b'{"status":"registered","version":"1.0b17"}')


async def measure(worker: Worker, profiler: cProfile.Profile | None) -> None:
    """Print the microseconds that the main thread spends on a task, round by round, or by module."""
    spare_the_collector()
    running = asyncio.ensure_future(worker.main(health_check=False))
    await asyncio.sleep(1)
    if profiler is None:
        print("µs of the main thread per task:", end="", flush=True)
        for _ in range(_ROUNDS):
            before, cpu = StandIn.done, time.thread_time()
            await asyncio.sleep(1)
            print(f" {(time.thread_time() - cpu) * 1e6 / (StandIn.done - before):.1f}", end="", flush=True)
        print()
    else:
        before = StandIn.done
        with profiler:
            await asyncio.sleep(3)
        _print_modules(profiler, StandIn.done - before)
    await worker.shutdown()
    await running


def _print_modules(profiler: cProfile.Profile, tasks: int) -> None:
    """Print what the functions of each module take of a task; built-in ones count for who calls them."""
    shares: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    stats: dict[Any, Any] = vars(pstats.Stats(profiler))["stats"]
    for (file, _, _), (_, count, own, _, callers) in stats.items():
        if file != "~":
            shares[_module(file)] += own
            calls[_module(file)] += count
            continue
        for (caller, _, _), (_, _, called_own, _) in callers.items():
            shares[_module(caller)] += called_own
    total = sum(shares.values())
    print(f"{sum(calls.values()) / tasks:.0f} calls of Python functions per task; of the time:")
    for module, share in shares.most_common(20):
        print(f"{share / total:6.1%}  {module} ({calls[module] / tasks:.0f} calls)")


def _module(file: str) -> str:
    parts = Path(file).with_suffix("").parts
    for root in ("avtomatika_worker", "bench", "asyncio", "logging"):
        if root in parts:
            return ".".join(
                parts[parts.index(root) :][:2] if root in {"asyncio", "logging"} else parts[parts.index(root) :]
            )
    return parts[-1]


def measure_results() -> None:
    """Print what results cost, as multiples of the least that anybody could do: write them once."""
    registry = SkillRegistry(injectables())
    for define_skill in (_untyped, _typed):
        registry.add(define(define_skill))
    task = Task(job_id="j", task_id="t", type="s", timestamp=1.0)
    nowhere: Any = None
    pipeline = Pipeline(registry, (), nowhere, nowhere, {}, files=nowhere)
    codec, recent = Codec("w", TOKEN, lambda: "n"), RecentResults()
    for rows in (1, 100, 8_000):
        data = {"rows": [{"id": n, "name": f"row {n}", "score": n / 7, "tags": ["a", "b"]} for n in range(rows)]}
        print(f"{len(orjson.dumps(data)):,} bytes:", end="")
        for name in registry.names():
            skill = registry.get(name)

            def once(value: Any = data, skill: Skill | None = skill) -> None:
                controls = Controls(task, "w", sink=nowhere, check_event=nowhere, hot=nowhere, skill=skill)
                assert skill is not None
                ended = encoded(pipeline.read_result(value, skill, controls), controls)
                result = build_result(task, ended.outcome, "w", seconds=1.0, encoded=ended.data)
                recent.remember("u", task, sendable(result, NEWEST))
                codec.result(result, NEWEST, 1.0)

            ratio, least = _ratio(
                once, lambda value=data: orjson.dumps(value, option=orjson.OPT_SORT_KEYS), 20_000 // rows + 5
            )
            print(f"  {name[1:]} {ratio:.1f} x {least * 1e6:.1f} µs", end="")
        print()


def _ratio(func: Callable[[], object], least: Callable[[], object], times: int) -> tuple[float, float]:
    """Return how often ``least`` could be done meanwhile, and the seconds that takes; the quickest of some rounds."""
    found = [math.inf, math.inf]
    for _ in range(_ROUNDS * 3):
        for which, each in enumerate((func, least)):
            began = time.thread_time()
            for _ in range(times):
                each()
            found[which] = min(found[which], (time.thread_time() - began) / times)
    return found[0] / found[1], found[1]


async def _untyped(params: dict[str, Any]) -> dict[str, Any]:
    return params


class _Row(TypedDict):
    id: int
    name: str
    score: float
    tags: list[str]


class _Rows(TypedDict):
    rows: list[_Row]


async def _typed() -> _Rows:
    return {"rows": []}


def main() -> None:
    """Measure and print."""
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m bench.core")
    parser.add_argument("slots", type=int, nargs="?", default=50)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--result", action="store_true", help="print what results cost")
    arguments = parser.parse_args()
    if arguments.result:
        measure_results()
        return
    slots: int = arguments.slots
    vars(make_links)["HttpTransport"] = StandIn  # a benchmark may do what a test may not
    worker = Worker(worker_type="bench", max_concurrent_tasks=slots)

    @worker.skill
    async def echo(params: dict[str, Any]) -> dict[str, Any]:
        return {"status": "success", "data": params}

    with tempfile.TemporaryDirectory(prefix="bench-") as state, open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.environ.update(WORKER_TOKEN=TOKEN, WORKER_STATE_DIR=state)
        handler = configure_logging("text", "INFO", nowhere, background=True)
        uvloop.run(measure(worker, cProfile.Profile(time.thread_time) if arguments.profile else None))
        logging.getLogger().removeHandler(handler)


if __name__ == "__main__":
    main()
