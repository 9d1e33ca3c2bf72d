"""What each answer to each call means: every status, from an orchestrator and from what stands in its place."""

import json

import pytest

from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.config import load_settings
from avtomatika_worker.errors import MalformedMessageError, RejectedError, TransportError
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.observability.host import detect_host
from avtomatika_worker.protocol import replies
from avtomatika_worker.protocol.dialects import NEUTRAL, NEWEST
from avtomatika_worker.protocol.messages import Event, Heartbeat, TaskResult, WorkerStatus
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.worker.announcement import announce
from services.conftest import actions, running
from services.scripted import RESET, VERSION, Answer, Scripted

CALLS = ("register", "heartbeat", "poll", "result", "event")
STATUSES = range(100, 600)
PORTAL = b'{"login": "please", "status": "portal"}'


def make_announcement():
    settings = load_settings({"WORKER_ID": "w1", "ORCHESTRATOR_URL": "http://127.0.0.1:1", "WORKER_TOKEN": "token"})
    return announce(settings, Worker().skills, {}, detect_host())


async def make(link, kind):
    """Make a call of a kind as the worker does, and return what it brings."""
    codec = link.codec
    match kind:
        case "register":
            registration = make_announcement().registration
            return replies.decode_registration(await link.call(codec.register(registration, NEUTRAL, link.now())))
        case "heartbeat":
            beat = Heartbeat(worker_id="w1", status=WorkerStatus.IDLE, skills_hash="")
            return replies.decode_heartbeat(await link.call(codec.heartbeat(beat, NEWEST, link.now())))
        case "poll":
            return await link.poll(("a",), ())
        case "result":
            return await link.send_result(
                TaskResult(job_id="j", task_id="t", worker_id="w1", origin_worker_id="w1", status="success")
            )
        case "event":
            return await link.send_event(
                Event(event_id="e", worker_id="w1", origin_worker_id="w1", event_type="x", payload={})
            )


async def meaning(link, kind):
    """Return what an answer is taken for."""
    try:
        brought = await make(link, kind)
    except RejectedError as error:
        if error.rate_limited:
            return "wait"
        return "again" if error.retryable else "final"
    except (TransportError, MalformedMessageError):
        return "again"
    return "none" if brought is None else "taken"


def expected(kind, status, *, announced):
    """The table of docs/delivery.md, for answers whose body is not the reply's."""
    if status == 429:
        return "wait"
    if status == 204 and kind == "poll" and announced:
        return "none"
    return "final" if status in {400, 413} and announced else "again"


@pytest.fixture
async def server():
    async with Scripted() as started:
        yield started


@pytest.fixture
async def link(server):
    link = Link(LinkSettings(server.url, "token"), "w1", HttpTransport(server.url, user_agent="test"))
    link.open()
    link.registered(VERSION)
    yield link
    await link.close()


@pytest.mark.parametrize("announced", [True, False], ids=["orchestrator", "stranger"])
@pytest.mark.parametrize("kind", CALLS)
async def test_every_status_has_its_meaning(server, link, kind, announced):
    found = {}
    for status in STATUSES:
        body = b"" if status < 200 or status in {204, 304} else PORTAL
        answer = Answer(status, body, announced=announced)
        server.script = lambda _call, answer=answer: answer
        found[status] = await meaning(link, kind)
    assert found == {status: expected(kind, status, announced=announced) for status in STATUSES}


@pytest.mark.parametrize("announced", [True, False], ids=["orchestrator", "stranger"])
@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b"[]",
        b"OK",
        b"<html>please log in</html>",
        b'{"status": ',
        b'{"status": "welcome"}',
        PORTAL,
    ],
)
async def test_a_200_without_the_reply_to_the_call_is_not_a_success(server, link, kind, body, announced):
    server.script = lambda _call: Answer(200, body, announced=announced)
    assert await meaning(link, kind) == "again"


@pytest.mark.parametrize("kind", CALLS)
async def test_the_calls_own_reply_is_taken(server, link, kind):
    if kind == "poll":
        await server.hand_out({"task_id": "t", "type": "a"})
    assert await meaning(link, kind) == "taken"


async def test_behind_a_proxy_that_strips_headers_an_empty_poll_is_one(server, link):
    link.registered(VERSION, announced=False)
    server.script = lambda _call: Answer(204, announced=False)
    assert await meaning(link, "poll") == "none"
    server.script = lambda _call: Answer(400, announced=False)
    assert await meaning(link, "result") == "again"  # nobody knows who says so


STRANGE = [
    *(Answer(status, headers={"Location": "http://127.0.0.1:1/"}) for status in (301, 302, 303, 307, 308)),
    *(Answer(status) for status in (201, 204, 304, 402, 404, 405, 406, 409, 410, 417, 418, 421, 426, 451, 511)),
    *(Answer(status, announced=False) for status in (200, 400, 403, 413, 500)),
    *(Answer(200, body) for body in (b"", b"<html>please log in</html>", PORTAL)),
]


async def test_a_result_outlives_whatever_a_proxy_or_portal_answers(worker):
    @worker.skill
    async def note():
        return {"noted": True}

    def script(call):
        if call.kind == "result" and call.number <= len(STRANGE):
            return STRANGE[call.number - 1]
        return None

    async with Scripted(script) as server, running(worker, server, result_retry_max_delay=0.02):
        await server.hand_out({"task_id": "t", "type": "note"})
        await server.until(lambda: len(server.calls["result"]) > len(STRANGE))
        assert {call.body["status"] for call in server.calls["result"]} == {"success"}
        assert len(server.calls["result"]) == len(STRANGE) + 1


async def test_a_portal_is_not_registered_at(worker, caplog):
    @worker.skill
    async def note():
        return {}

    portal = [Answer(200, PORTAL, announced=False), Answer(302), Answer(200, b"<html>"), Answer(204, announced=False)]

    def script(call):
        return portal[call.number - 1] if call.kind == "register" and call.number <= len(portal) else None

    async with Scripted(script) as server, running(worker, server):
        await server.hand_out({"task_id": "t", "type": "note"})
        await server.until(lambda: server.calls["result"])
        assert len(server.calls["register"]) == len(portal) + 1
    assert actions(caplog, "registration_failed")


@pytest.mark.parametrize("kind", ["poll", "result", "register"])
async def test_a_retry_after_of_years_is_ignored_and_reported_once(worker, caplog, kind):
    @worker.skill
    async def note():
        return {}

    def script(call):
        if call.kind == kind and call.number == 1:
            return Answer(429, headers={"Retry-After": "999999999"})
        return None

    async with Scripted(script) as server, running(worker, server):
        await server.hand_out({"task_id": "t", "type": "note"})
        await server.until(lambda: len(server.calls[kind]) >= 2 and server.results())
    (report,) = actions(caplog, "retry_after_ignored")
    assert "999999999 s" in report
    assert "300 s" in report


async def test_an_event_that_was_reset_and_then_refused_for_another_reason_is_delivered(worker):
    """A token that is accepted again after a while: what was refused meanwhile is not a replay."""

    @worker.skill(events={"step": {"type": "object"}})
    async def steps(ctx: TaskContext):
        ctx.send_event("step", {"n": 1})

    def script(call):
        if call.kind == "event":
            return {1: RESET, 2: Answer(403, b'{"error": "no"}'), 3: Answer(403, announced=False)}.get(call.number)
        return None

    async with Scripted(script) as server, running(worker, server):
        await server.hand_out({"task_id": "t", "type": "steps"})
        await server.until(lambda: len(server.calls["event"]) >= 4)
        assert len({json.dumps(call.body["event_id"]) for call in server.calls["event"]}) == 1
