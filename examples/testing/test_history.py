"""Nothing is lost and nothing is done twice, whatever the network does."""

import pytest
from shop import Order, worker

from avtomatika_worker.testing import EmbeddedOrchestrator, Fault
from avtomatika_worker.testing.history import Kind, recording


@pytest.mark.usefixtures("worker_history")
async def test_what_is_promised_holds_on_a_bad_day(worker_harness):
    h = await worker_harness(worker)
    h.orchestrator.inject(Fault("result", "drop_after"), Fault("poll", "reset"), Fault("event", "status", status=503))
    await h.run("price", Order("tea"))
    # worker_history checks the invariants when worker and orchestrator have ended


@pytest.mark.usefixtures("worker_history")
@pytest.mark.breaks_invariants("results_settled")
async def test_an_orchestrator_that_takes_no_results_at_all(worker_harness):
    h = await worker_harness(worker)
    h.orchestrator.inject(Fault("result", "status", status=503, times=None))
    task = h.submit("price", Order("tea"))
    await h.orchestrator.wait_for(lambda: any(call.call == "result" for call in h.orchestrator.requests))
    assert not task.job.state.final


async def test_a_look_at_the_history_itself(worker_harness):
    with recording() as history:
        async with EmbeddedOrchestrator() as orchestrator:
            h = await worker_harness(worker, orchestrator=orchestrator)
            await h.run("price", Order("cup"))
        assert [entry.facts["skill"] for entry in history.entries if entry.kind is Kind.WORK_STARTED] == ["price"]
        assert history.violations() == []
