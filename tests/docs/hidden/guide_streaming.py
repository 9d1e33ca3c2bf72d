import json

from aiohttp import web

from avtomatika_worker.testing import WorkerHarness

CHUNKS = [(1, 0, "to "), (1, 0, "to "), (2, 0, "to "), (1, 1, "lost"), (2, 1, "be")]


async def relay(request):
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for attempt, index, data in CHUNKS:
        chunk = json.dumps({"attempt": attempt, "index": index, "data": data})
        await answer.write(f"event: chunk\ndata: {chunk}\n\n".encode())
    await answer.write(b'event: end\ndata: {"event": "job_finished"}\n\n')
    return answer


async def after(names):
    async with WorkerHarness(names["worker"]) as h:
        assert (await h.run("answer", {"prompt": "to be"})).data == {"words": 2}
    app = web.Application()
    app.router.add_get("/", relay)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        assert [text async for text in names["read"](url)] == ["to ", "to ", "to be"]
    finally:
        await runner.cleanup()
