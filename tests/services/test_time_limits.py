"""Skills that say how long they take, and limits that are shorter."""

import time

from services.conftest import actions, running


async def test_limits_that_are_shorter_than_a_skill_expects_are_named_once(orchestrator, worker, caplog):
    @worker.skill(expected_seconds=3600, timeout=1800)
    async def render():
        return {}

    @worker.skill(expected_seconds=10, timeout=20)
    async def thumbnail():
        return {}

    async with running(worker, orchestrator, orchestrator_task_limit=2400):
        by_timeout, by_orchestrator = actions(caplog, "time_limit_too_short")
        assert by_timeout == "skill render is expected to take 3600 s, and its timeout stops it after 1800 s"
        assert by_orchestrator.endswith("orchestrators give a task up after 2400 s (ORCHESTRATOR_TASK_LIMIT)")
        await orchestrator.submit("thumbnail", {}, deadline=time.time() + 60).done()
        assert not actions(caplog, "deadline_too_short")
        await orchestrator.submit("thumbnail", {}, deadline=time.time() + 5).done()
        (warning,) = actions(caplog, "deadline_too_short")
        assert "skill thumbnail is expected to take 10 s, but the deadline of a task" in warning
