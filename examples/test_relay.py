"""A stand-in for the orchestrator's API for clients calls the webhooks; tests/e2e has the real one."""

import aiohttp
import pytest
from aiohttp import web

import relay

CHUNKS = [{"attempt": 1, "index": index, "data": data} for index, data in enumerate(["to ", "be"])]


async def serving(*routes):
    app = relay.make_app() if not routes else web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def url(monkeypatch):
    async def submitted(request):
        job = await request.json()
        if job["prompt"] == "busy":
            return web.Response(status=429)
        events = [("worker_event:chunk", chunk) for chunk in CHUNKS] + [("job_finished", {})]
        async with aiohttp.ClientSession() as session:
            for event, result in events:
                call = {"event": event, "job_id": "j", "result": result}
                assert (await session.post(job["webhook_url"], json=call)).status == 200
        return web.json_response({"job_id": "j"}, status=202)

    relaying, relay_url = await serving()
    orchestrator, orchestrator_url = await serving(web.post("/api/v1/jobs/complete", submitted))
    monkeypatch.setattr(relay, "RELAY", relay_url)
    monkeypatch.setattr(relay, "ORCHESTRATOR", orchestrator_url)
    yield relay_url
    await relaying.cleanup()
    await orchestrator.cleanup()


async def test_chunks_become_server_sent_events_until_the_end_of_the_job(url):
    async with aiohttp.ClientSession() as session, session.get(f"{url}/stream?prompt=to+be") as answer:
        lines = (await answer.text()).splitlines()
    assert lines[0::3] == ["event: chunk", "event: chunk", "event: end"]
    assert lines[1] == 'data: {"attempt": 1, "index": 0, "data": "to "}'
    assert relay.calls == {}


async def test_an_orchestrator_that_refuses_is_a_bad_gateway(url):
    async with aiohttp.ClientSession() as session, session.get(f"{url}/stream?prompt=busy") as answer:
        assert (answer.status, await answer.text()) == (502, "the orchestrator answers 429")


async def test_nobody_sends_to_a_stream_that_is_not_there(url):
    async with aiohttp.ClientSession() as session, session.post(f"{url}/hooks/guessed", json={}) as answer:
        assert answer.status == 410
