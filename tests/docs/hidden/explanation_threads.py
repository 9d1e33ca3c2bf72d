import threading

from avtomatika_worker.testing import WorkerHarness


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert (await h.run("on_the_loop")).data["result"] == threading.current_thread().name
        assert (await h.run("in_a_thread")).data["result"].startswith("skill")
