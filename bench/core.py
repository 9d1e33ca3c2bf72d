"""What a task costs this worker itself: CPU time of the main thread with the HTTP library replaced by a stand-in.

For work on the hot path: less noisy than the real thing, and a profiler sees only our own code. Run as
``python -m bench.core [SLOTS]``, under ``py-spy record`` for a profile.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, Final

from avtomatika_worker import Worker
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.worker import assembly
from avtomatika_worker.worker.process import spare_the_collector
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


async def measure(worker: Worker) -> list[float]:
    """Return the microseconds that the main thread spent on a task, round by round."""
    spare_the_collector()
    running = asyncio.ensure_future(worker.main(health_check=False))
    await asyncio.sleep(1)
    found: list[float] = []
    for _ in range(_ROUNDS):
        before, cpu = StandIn.done, time.thread_time()
        await asyncio.sleep(1)
        found.append((time.thread_time() - cpu) * 1e6 / (StandIn.done - before))
    await worker.shutdown()
    await running
    return found


def main() -> None:
    """Measure and print."""
    import uvloop

    slots = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    vars(assembly)["HttpTransport"] = StandIn  # a benchmark may do what a test may not
    worker = Worker(worker_type="bench", max_concurrent_tasks=slots)

    @worker.skill
    async def echo(params: dict[str, Any]) -> dict[str, Any]:
        return {"status": "success", "data": params}

    with tempfile.TemporaryDirectory(prefix="bench-") as state, open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.environ.update(WORKER_TOKEN=TOKEN, WORKER_STATE_DIR=state)
        handler = configure_logging("text", "INFO", nowhere)
        found = uvloop.run(measure(worker))
        logging.getLogger().removeHandler(handler)
    print("µs of the main thread per task:", " ".join(f"{each:.1f}" for each in found))


if __name__ == "__main__":
    main()
