"""The skill of the page leaves a machine that is taken away, with what it has done."""

import asyncio

from avtomatika_worker.testing import WorkerHarness


def before():
    async def the_providers_notice():
        """Come at once."""

    return {"the_providers_notice": the_providers_notice}


async def after(names):
    worker = names["worker"]
    async with WorkerHarness(worker) as h:
        assert (await h.run("simulate", {"steps": 50})).data == {"step": 50}
        task = h.submit("simulate", {"steps": 1_000_000})
        await h.orchestrator.wait_for(lambda: task.job.attempts)
        await names["watch_the_provider"]()
        async with asyncio.timeout(20):
            await h._running  # noqa: SLF001 - the worker ends by itself
        result = await task.result()
    assert result.error.message == "this machine is taken away"
    assert result.checkpoint.state["step"] < 1_000_000
