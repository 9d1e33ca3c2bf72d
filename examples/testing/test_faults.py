"""What networks and orchestrators do on a bad day, and that the worker's results arrive all the same."""

from shop import Order, worker

from avtomatika_worker.testing import EmbeddedOrchestrator, Fault


async def test_a_lost_reply_to_a_result(worker_harness):
    h = await worker_harness(worker)
    h.orchestrator.inject(Fault("result", "drop_after"))  # it arrives, and the worker does not hear of that
    result = await h.run("price", Order("tea"))
    assert result.data == {"cents": 450}
    await h.orchestrator.wait_for(lambda: len(result.job.results_received) == 2)
    assert result.job.results_received[1].status == "ignored"


async def test_an_orchestrator_that_asks_to_slow_down_and_then_fails(worker_harness):
    h = await worker_harness(worker)
    h.orchestrator.inject(
        Fault("result", "status", status=429, retry_after=0),
        Fault("result", "status", status=503, times=2),
        Fault("poll", "reset"),
    )
    assert (await h.run("price", Order("cup"))).data == {"cents": 1200}


async def test_an_orchestrator_that_forgets_its_workers(worker_harness):
    async with EmbeddedOrchestrator(version="1.0b11") as orchestrator:  # an older protocol
        h = await worker_harness(worker, orchestrator=orchestrator)
        await orchestrator.stop()
        orchestrator.forget_workers()
        await orchestrator.start()  # on the same port
        await orchestrator.wait_for_worker()
        assert (await h.run("price", Order("tea", 2))).data == {"cents": 900}
