"""An embedded orchestrator and a worker in a thread, for targets that need a running system."""

from __future__ import annotations

import functools
import http.client
from typing import Any, Final

from avtomatika_worker import Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault
from avtomatika_worker.protocol.codec import (
    EVENT_PATH,
    REFRESH_PATH,
    REGISTER_PATH,
    RESULT_PATH,
    TOKEN_PATH,
    heartbeat_path,
)
from avtomatika_worker.testing import WorkerHarness
from fuzz.loop_thread import TIMEOUT, LoopThread

TOKEN: Final = "dev-token"  # noqa: S105 - the embedded orchestrator's default


class Server:
    """Runs until ``close``."""

    worker_paths = (REGISTER_PATH, heartbeat_path("w"), RESULT_PATH, EVENT_PATH, TOKEN_PATH, REFRESH_PATH)

    def __init__(self) -> None:
        self._thread = LoopThread()
        self._orchestrator = EmbeddedOrchestrator(poll_time=0.05)
        self._thread.run(self._orchestrator.start())
        self._connection = http.client.HTTPConnection("127.0.0.1", self._orchestrator.port, timeout=TIMEOUT)
        self._harness: WorkerHarness | None = None

    @classmethod
    @functools.cache
    def shared(cls) -> Server:
        """Return the only one, started."""
        return cls()

    @classmethod
    def close_shared(cls) -> None:
        """Close the shared one, if there is one: what runs next in this process shares it with no worker."""
        if cls.shared.cache_info().currsize:
            cls.shared().close()
            cls.shared.cache_clear()

    def close(self) -> None:
        """Stop the worker, the orchestrator and their thread."""
        self._connection.close()
        if self._harness is not None:
            self._thread.run(self._harness.__aexit__(None, None, None))
        self._thread.run(self._orchestrator.stop())
        self._thread.close()

    def request(self, path: str, body: bytes) -> int:
        """Post the body and return the status of the answer."""
        safe = "".join(each for each in path if "!" <= each <= "~")
        headers = {"Content-Type": "application/json", "X-Worker-Token": TOKEN}
        self._connection.request("POST", safe, body, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def hand_out(self, body: bytes) -> None:
        """Answer a poll of a worker with the body, then see that it runs a real task."""
        if self._harness is None:
            worker = Worker()

            @worker.skill
            async def echo(params: dict[str, Any]) -> dict[str, Any]:
                """Return what came."""
                return params

            self._harness = WorkerHarness(worker, orchestrator=self._orchestrator)
            self._thread.run(self._harness.__aenter__())
        self._thread.run(self._hand_out(self._harness, body))

    async def _hand_out(self, harness: WorkerHarness, body: bytes) -> None:
        fault = Fault("poll", "body", status=200, body=body)
        harness.orchestrator.inject(fault)
        await harness.orchestrator.wait_for(lambda: fault.used)
        result = await harness.run("echo", {"still": "alive"})
        assert result.data == {"still": "alive"}
