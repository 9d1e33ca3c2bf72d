"""What is refused, and that the reason is given."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from avtomatika_worker.devserver import DEFAULT_RATE_LIMITS, PRODUCTION_LIKE, EmbeddedOrchestrator
from avtomatika_worker.protocol.codec import REFRESH_PATH, RESULT_PATH, Request
from avtomatika_worker.protocol.dialects import DIALECTS
from devserver.support import Start, WorkerClient, resigned, tampered

VERSIONS = [dialect.version for dialect in DIALECTS]


def only_problem(orchestrator: EmbeddedOrchestrator) -> str:
    assert len(orchestrator.problems) == 1, list(map(str, orchestrator.problems))
    return orchestrator.problems[0].text


@pytest.mark.parametrize(("version", "status"), [("1.0b7", 401), ("1.0b10", 403), ("1.0b17", 403)])
@pytest.mark.parametrize("token", ["wrong", "", "dev-tokeñ"])
async def test_a_wrong_token_is_refused(start: Start, token: str, version: str, status: int) -> None:
    orchestrator, worker = await start(version=version)
    reply = await worker.send(worker.beat(), {"X-Worker-Token": token})
    assert reply.status == status
    assert "X-Worker-Token" in reply.json["error"]
    assert only_problem(orchestrator) == reply.json["error"]


async def test_any_token_is_accepted_and_signs_when_none_is_set(start: Start) -> None:
    orchestrator, worker = await start(token=None)
    assert (await worker.heartbeat()).status == 200
    assert (await worker.send(worker.beat(), {"X-Worker-Token": "another"})).status == 403
    assert "signature" in only_problem(orchestrator)


async def test_individual_tokens_go_before_the_common_one(start: Start, session: Any) -> None:
    orchestrator, worker = await start(individual_tokens={"w2": "its-own"})
    assert (await WorkerClient(orchestrator, session, worker_id="w2", token="its-own").register()).status == 200
    assert (await WorkerClient(orchestrator, session, worker_id="w2").register()).status == 403
    assert (await worker.register()).status == 200


async def test_the_id_in_the_header_must_be_the_workers(start: Start) -> None:
    orchestrator, worker = await start()
    other = {"X-Worker-ID": "another"}
    task = {"job_id": "j", "task_id": "t"}
    for request in (worker.beat(), worker.codec.poll(1, (), (), worker.dialect), worker.outcome(task)):
        assert (await worker.send(request, other)).status == 403
    assert {problem.status for problem in orchestrator.problems} == {403}


async def test_the_id_in_the_body_must_be_the_paths(start: Start) -> None:
    orchestrator, worker = await start()
    assert (await worker.send(resigned(worker, worker.beat(), worker_id="another"))).status == 403
    assert "another" in only_problem(orchestrator)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_changed_message_has_a_wrong_signature(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version)
    assert (await worker.send(tampered(worker.beat(), usage={"cpu_load_percent": 1, "ram_used_gb": 1}))).status == 403
    assert version in only_problem(orchestrator)


@pytest.mark.parametrize("security", [None, {}, {"signature": None}, {"signature": ""}])
async def test_a_missing_signature_is_refused(start: Start, security: dict[str, Any] | None) -> None:
    orchestrator, worker = await start()
    assert (await worker.send(tampered(worker.beat(), security=security))).status == 403
    assert "signature is missing" in only_problem(orchestrator)


@pytest.mark.parametrize(("version", "depth"), [("1.0b7", 201), ("1.0b16", 101), ("1.0b17", 31)])
async def test_values_that_cannot_be_digested_are_answered_with_500(start: Start, version: str, depth: int) -> None:
    orchestrator, worker = await start(version=version)
    deep: dict[str, Any] = {}
    for _ in range(depth):
        deep = {"d": deep}
    reply = await worker.send(resigned(worker, worker.beat(), metadata=deep))
    assert reply.status == 500
    assert "nested too deep" in only_problem(orchestrator)


async def test_a_float_without_a_fraction_beyond_64_bits_is_answered_with_500(start: Start) -> None:
    orchestrator, worker = await start()
    assert (await worker.send(resigned(worker, worker.beat(), metadata={"x": 1e20}))).status == 500
    assert "$.metadata.x" in only_problem(orchestrator)


@pytest.mark.parametrize("offset", [-61, 61, None])
async def test_a_timestamp_that_is_off_is_refused(start: Start, offset: float | None) -> None:
    orchestrator, worker = await start()
    timestamp = None if offset is None else int(orchestrator.now() + offset + (1 if offset > 0 else 0))
    assert (await worker.send(resigned(worker, worker.beat(), timestamp=timestamp))).status == 403
    assert "timestamp" in only_problem(orchestrator)


async def test_the_clocks_offset_shows_in_the_date_and_in_the_checks(start: Start) -> None:
    orchestrator, worker = await start(clock=lambda: 1_000_000_000.0)
    reply = await worker.heartbeat()
    assert reply.headers["Date"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    late = worker.beat()
    orchestrator.clock_offset = 61
    assert (await worker.send(late)).status == 403
    assert (await worker.heartbeat()).headers["Date"] == "Sun, 09 Sep 2001 01:47:41 GMT"


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_same_bytes_twice_are_a_replay_where_nonces_are_kept(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version)
    beat = worker.beat()
    assert (await worker.send(beat)).status == 200
    again = await worker.send(beat)
    assert again.status == (403 if worker.dialect.replay_nonces else 200)
    assert len(orchestrator.problems) == (1 if worker.dialect.replay_nonces else 0)


@pytest.mark.parametrize("field", ["nonce", "message_id"])
async def test_a_nonce_counts_whatever_else_differs(start: Start, field: str) -> None:
    orchestrator, worker = await start()
    first = resigned(worker, worker.beat(), nonce=None) if field == "message_id" else worker.beat()
    first, second = (resigned(worker, first, **{field: "n", "metadata": {"i": i}}) for i in range(2))
    assert (await worker.send(first)).status == 200
    assert (await worker.send(second)).status == 403
    assert "differ" in only_problem(orchestrator)


async def test_a_nonce_is_forgotten_after_its_window(start: Start) -> None:
    orchestrator, worker = await start(lease=1000)
    first = resigned(worker, worker.beat(), nonce="n")
    assert (await worker.send(first)).status == 200
    orchestrator.clock_offset = 66
    later = resigned(worker, first, timestamp=int(orchestrator.now()))
    assert (await worker.send(later)).status == 200


async def test_a_second_delivery_of_an_event_is_refused_but_not_a_problem(start: Start) -> None:
    orchestrator, worker = await start()
    event = worker.happening(None, "alert", {})
    assert (await worker.send(event)).status == 200
    assert (await worker.send(event)).status == 403
    assert list(orchestrator.problems) == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"null", b"\xff", b'{"worker_id":1}', b"{}"])
async def test_bodies_that_are_not_messages_are_malformed(start: Start, body: bytes) -> None:
    orchestrator, worker = await start()
    assert (await worker.send(Request("POST", RESULT_PATH, body))).status == 400
    assert only_problem(orchestrator)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"status": "fine"}, "heartbeat.status"),
        ({"status": None}, "heartbeat.status"),
        ({"current_tasks": "none"}, "heartbeat.current_tasks"),
        ({"current_tasks": [1]}, "heartbeat.current_tasks[0]"),
        ({"usage": {"cpu_load_percent": "much", "ram_used_gb": 1}}, "heartbeat.usage"),
        ({"available_skills": ["no spaces"]}, "heartbeat.available_skills"),
    ],
)
async def test_fields_of_a_wrong_type_are_named(start: Start, fields: dict[str, Any], path: str) -> None:
    orchestrator, worker = await start()
    reply = await worker.send(resigned(worker, worker.beat(), **fields))
    assert reply.status == 400
    assert path in reply.json["error"]
    assert only_problem(orchestrator) == reply.json["error"]


@pytest.mark.parametrize(
    "fields",
    [
        {"worker_type": None},
        {"worker_type": "no spaces"},
        {"supported_skills": None},
        {"supported_skills": [{"type": "echo"}]},
        {"supported_skills": [{"name": "a" * 129}]},
        {"worker_id": "w/1"},
    ],
)
async def test_registrations_need_their_fields(start: Start, fields: dict[str, Any]) -> None:
    orchestrator, worker = await start(register=False)
    request = resigned(worker, worker.registration(), **fields)
    assert (await worker.send(request, {"X-Worker-ID": fields.get("worker_id", "w1")})).status == 400
    assert only_problem(orchestrator)
    assert not orchestrator.workers


async def test_unknown_fields_and_nulls_are_ignored(start: Start) -> None:
    orchestrator, worker = await start(version="1.0b7")
    request = resigned(worker, worker.beat(), unheard_of={"x": 1})
    assert (await worker.send(request)).status == 200
    body = {**orjson.loads(request.body or b""), "usage": None, "hot_cache": None}
    assert (await worker.send(resigned(worker, Request("PATCH", request.path, orjson.dumps(body))))).status == 200
    assert list(orchestrator.problems) == []


@pytest.mark.parametrize("version", ["1.0b7", "1.0b10", "1.0b11", "1.0b17"])
async def test_every_call_starts_the_period_of_a_rate_limit_again(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version, rate_limits={"heartbeat": 3}, clock=lambda: 1e9, lease=1000)

    async def beat(second: float) -> int:
        orchestrator.clock_offset = second
        return (await worker.heartbeat()).status

    # One each 50 s stays below three a minute; but there is never a minute without one.
    assert [await beat(second) for second in (0, 50, 100, 150, 200)] == [200, 200, 200, 429, 429]
    assert (await worker.register()).status == 200  # other calls have counts of their own
    assert await beat(259) == 429
    assert [await beat(319 + number) for number in range(4)] == [200, 200, 200, 429]
    assert list(orchestrator.problems) == []


async def test_refusals_for_the_rate_have_no_retry_after(start: Start) -> None:
    _, worker = await start(rate_limits={"heartbeat": 0})
    refused = await worker.heartbeat()
    assert (refused.status, refused.headers.get("Retry-After")) == (429, None)


@pytest.mark.parametrize(("version", "refused"), [("1.0b10", 429), ("1.0b11", 200)])
async def test_old_releases_count_the_results_of_an_address(
    start: Start, session: Any, version: str, refused: int
) -> None:
    orchestrator, worker = await start(version=version, rate_limits={"result": 2})
    other = WorkerClient(orchestrator, session, worker_id="w2")
    task = {"job_id": "j", "task_id": "t"}
    assert [(await worker.result(task)).status for _ in range(3)] == [200, 200, 429]
    assert (await other.result(task)).status == refused


@pytest.mark.parametrize(("version", "counted"), [("1.0b10", True), ("1.0b11", False)])
async def test_what_counts_for_a_rate_limit(start: Start, version: str, counted: bool) -> None:
    _, worker = await start(version=version, rate_limits={"heartbeat": 1}, max_message=2000)
    path = worker.beat().path
    unreadable = await worker.send(Request("PATCH", path, b"{"))
    assert unreadable.status == 400
    too_large = await worker.send(Request("PATCH", path, b" " * 2001))
    assert too_large.status == (429 if counted else 413)
    wrong_token = await worker.send(worker.beat(), {"X-Worker-Token": "wrong"})
    assert wrong_token.status == (429 if counted else 403)
    tampered_with = await worker.send(tampered(worker.beat(), status="busy"))
    assert tampered_with.status == (429 if counted else 403)
    assert (await worker.heartbeat()).status == 429


async def test_the_default_limits_are_those_of_releases(start: Start) -> None:
    orchestrator, worker = await start(PRODUCTION_LIKE, poll_time=0)
    assert orchestrator.settings.rate_limits == DEFAULT_RATE_LIMITS
    statuses = [(await worker.poll()).status for _ in range(61)]
    assert statuses == [204] * 60 + [429]


async def test_issued_tokens_are_wanted_from_then_on(start: Start) -> None:
    orchestrator, worker = await start(issue_tokens=True, token_lifetime=100, register=False)
    granted = (await worker.register()).json
    assert granted["expires_in"] == 100
    assert (await worker.heartbeat()).status == 403  # the configured token is not enough any more
    access = {"X-Worker-Token": granted["access_token"]}
    assert (await worker.send(worker.beat(), access)).status == 200  # still signed with the configured token
    orchestrator.clock_offset = 101
    await worker.register()
    assert (await worker.send(worker.beat(), access)).status == 403

    body = orjson.dumps({"refresh_token": granted["refresh_token"]})
    refreshed = await worker.send(Request("POST", REFRESH_PATH, body))
    assert refreshed.status == 403  # the second registration has replaced it
    assert list(orchestrator.problems) == []


async def test_a_refresh_token_works_once(start: Start) -> None:
    _, worker = await start(issue_tokens=True, register=False)
    body = orjson.dumps({"refresh_token": (await worker.register()).json["refresh_token"]})
    renewed = await worker.send(Request("POST", REFRESH_PATH, body))
    access = {"X-Worker-Token": renewed.json["access_token"]}
    assert (await worker.send(worker.beat(), access)).status == 200
    assert (await worker.send(Request("POST", REFRESH_PATH, body))).status == 403


async def test_an_access_token_is_one_workers(start: Start, session: Any) -> None:
    orchestrator, worker = await start(issue_tokens=True, register=False)
    access = {"X-Worker-Token": (await worker.register()).json["access_token"]}
    other = WorkerClient(orchestrator, session, worker_id="w2")
    assert (await other.send(other.beat(), access)).status == 403


@pytest.mark.parametrize(
    ("version", "token", "refresh"), [("1.0b7", 403, 404), ("1.0b12", 403, 404), ("1.0b13", 200, 200)]
)
async def test_tokens_on_request(start: Start, version: str, token: int, refresh: int) -> None:
    _, worker = await start(version=version)
    granted = await worker.send(worker.codec.access_token())
    assert granted.status == token
    body = orjson.dumps({"refresh_token": granted.json.get("refresh_token")})
    assert (await worker.send(Request("POST", REFRESH_PATH, body))).status == refresh


async def test_tokens_do_not_show_in_the_recorded_calls(start: Start) -> None:
    orchestrator, worker = await start()
    await worker.heartbeat()
    call = orchestrator.requests[-1]
    assert call.headers["x-worker-token"] == "***"
    assert (call.call, call.method, call.path, call.status) == ("heartbeat", "PATCH", "/_worker/workers/w1", 200)
    assert call.json["worker_id"] == "w1"
    assert orjson.loads(call.reply) == {"status": "ok"}


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("options", [{}, {"max_message": 2**19}])
async def test_a_message_over_the_limit_of_released_orchestrators_is_refused(
    start: Start, options: dict[str, int], over: int
) -> None:
    orchestrator, worker = await start(**options)
    await worker.heartbeat()
    job = orchestrator.submit("echo", {})
    task = await worker.task()
    most = options.get("max_message", 2**20)
    frame = len(worker.happening(task, "note", {"text": ""}).body or b"")
    reply = await worker.event(task, "note", {"text": "x" * (most + over - frame)})
    assert (reply.status, len(job.events)) == ((413, 0) if over else (200, 1))
    if over:
        assert f"{most + 1} bytes" in only_problem(orchestrator)
