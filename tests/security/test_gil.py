"""Code that never releases the GIL: in a process of its own it costs neither heartbeats nor health."""

import re

from avtomatika_worker import Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.testing import WorkerHarness

worker = Worker()


@worker.skill(executor="process", timeout=6.0, cancel_grace=0.1)
def stuck(text: str):
    re.match("^(a+)+$", text)


async def test_a_skill_in_a_process_that_holds_the_gil_costs_no_heartbeat_and_is_killed_in_time():
    fast = {"heartbeat_interval": 0.5}
    async with (
        EmbeddedOrchestrator(max_attempts=1) as orchestrator,
        WorkerHarness(worker, orchestrator=orchestrator, settings=fast) as harness,
    ):
        task = harness.submit("stuck", {"text": "a" * 60 + "!"})
        await orchestrator.wait_for(lambda: task.job.state.value == "running")

        def beats():
            return [each for each in orchestrator.requests if each.call == "heartbeat"]

        before = len(beats())
        await orchestrator.wait_for(lambda: len(beats()) >= before + 4, 20)
        assert task.job.state.value == "running"
        result = await task.result(timeout=60)
    assert result.status == "failure"
    assert result.error.code == "TIMEOUT_ERROR"
