"""Reading what orchestrators send. Invariant: whatever the bytes, nothing but the documented errors is raised."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.errors import MalformedMessageError, RejectedError
from avtomatika_worker.protocol import replies
from avtomatika_worker.protocol.replies import Response

CAPTURES = sorted((Path(__file__).parent.parent / "data" / "captures").glob("*.jsonl"))
DECODERS = [
    replies.decode_task,
    replies.decode_registration,
    replies.decode_heartbeat,
    replies.decode_result,
    replies.decode_event,
    replies.decode_token,
]


def answer(body, status=200, **headers):
    return Response(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


@given(st.binary(max_size=200), st.sampled_from([200, 204, 301, 400, 429, 500]), st.sampled_from(DECODERS))
def test_random_bytes_end_in_a_value_or_a_documented_error(body, status, decode):
    with contextlib.suppress(MalformedMessageError, RejectedError):
        decode(answer(body, status))


@given(
    st.dictionaries(
        st.sampled_from(
            ["job_id", "task_id", "type", "params", "priority", "deadline", "metadata", "status", "version"]
        ),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2),
    ),
    st.sampled_from(DECODERS),
)
def test_objects_of_wrong_types_end_in_a_value_or_a_documented_error(fields, decode):
    with contextlib.suppress(MalformedMessageError):
        decode(answer(fields))


@pytest.mark.parametrize("file", CAPTURES, ids=lambda path: path.stem)
def test_every_recorded_task_of_real_orchestrators_is_read(file):
    tasks = 0
    for line in file.read_text("utf-8").splitlines():
        call = json.loads(line)
        if "/tasks/next" in call["path"] and call["status"] == 200:
            task = replies.decode_task(answer(call["response_body"].encode()))
            assert task is not None
            assert task.job_id
            tasks += 1
    assert tasks


def test_a_malformed_task_that_names_itself_can_be_answered():
    with pytest.raises(MalformedMessageError) as caught:
        replies.decode_task(answer({"job_id": "j", "task_id": "t", "type": 5}))
    assert (caught.value.job_id, caught.value.task_id) == ("j", "t")


@pytest.mark.parametrize("long", ["job_id", "task_id"])
def test_a_task_with_a_long_id_is_none_and_cannot_be_answered(long):
    ids = {"job_id": "j" * 256, "task_id": "t" * 256, "type": "x"}
    assert replies.decode_task(answer(ids)).task_id == "t" * 256
    with pytest.raises(MalformedMessageError, match="an id of more than 256 characters") as caught:
        replies.decode_task(answer({**ids, long: "i" * 257}))
    assert (caught.value.job_id, caught.value.task_id) == (None, None)


def test_a_task_with_a_long_type_can_be_answered():
    with pytest.raises(MalformedMessageError, match="a type of more than 256 characters") as caught:
        replies.decode_task(answer({"job_id": "j", "task_id": "t", "type": "x" * 257}))
    assert (caught.value.job_id, caught.value.task_id) == ("j", "t")


def test_deep_nesting_is_malformed_not_a_crash():
    with pytest.raises(MalformedMessageError):
        replies.decode_task(answer(b'{"params":' + b"[" * 100_000))


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("3", None, 3.0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", "Mon, 23 Nov 2026 12:00:00 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", "Mon, 23 Nov 2026 12:00:00 GMT", 0.0),
        ("soon", None, None),
        ("-1", None, None),
        ("-5", None, None),
        ("NaN", None, None),
        ("inf", None, None),
        ("1e9", None, None),
        ("\u0665", None, None),
        ("", None, None),
        ("007", None, 7.0),
        ("0" * 50 + "5", None, 5.0),
        ("999999999", None, 999999999.0),
        ("123456789012", None, 123456789012.0),
        ("1234567890123", None, 1e12),
        ("9" * 400, None, 1e12),
        ("Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 23 Nov 2026 12:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 23 Nov 2026 12:00:00 GMT", 251606865599.0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", None, None),
        (None, None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, date, seconds):
    assert replies.parse_retry_after(value, date) == seconds


@given(st.text(), st.text())
def test_retry_after_never_raises(value, date):
    replies.parse_retry_after(value, date)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"error": "no such worker"}', "no such worker"),
        (b"plain text", "plain text"),
        (b"<html><body>Bad gateway", "an HTML page (is there a proxy in between?)"),
        (b"a\x1b[31mb", "a [31mb"),
    ],
)
def test_a_refusal_carries_its_status_and_words_for_people(body, detail):
    with pytest.raises(RejectedError) as caught:
        replies.decode_result(answer(body, 403))
    assert (caught.value.status, caught.value.detail) == (403, detail)


def test_tokens_do_not_show_in_reprs():
    reply = replies.decode_registration(answer({"status": "registered", "access_token": "s3cret"}))
    assert reply.access_token == "s3cret"
    assert "s3cret" not in repr(reply)


def test_a_heartbeats_answer_is_read_field_by_field():
    everything = {
        "status": "ok",
        "cancel_task_ids": ["a", 1, "b"],
        "next_heartbeat_jitter_ms": -250,
        "require_full_sync": True,
    }
    reply = replies.decode_heartbeat(answer(everything))
    assert (reply.cancel_ids, reply.jitter_ms, reply.full_sync) == (("a", "b"), -250.0, True)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"cancel_task_ids": "a", "next_heartbeat_jitter_ms": "5", "require_full_sync": 1},
        {"cancel_task_ids": None, "next_heartbeat_jitter_ms": True, "require_full_sync": "true"},
    ],
    ids=str,
)
def test_what_a_heartbeats_answer_lacks_or_has_of_another_type_asks_for_nothing(odd):
    reply = replies.decode_heartbeat(answer({"status": "ok", **odd}))
    assert (reply.cancel_ids, reply.jitter_ms, reply.full_sync) == ((), 0.0, False)


@pytest.mark.parametrize(
    ("decode", "body", "problem"),
    [
        (replies.decode_task, b"{", "not a task: "),
        (replies.decode_registration, b"{", "not the answer to a registration: "),
        (replies.decode_registration, {"status": "ok"}, "not a registration's answer: status 'ok'"),
        (
            replies.decode_registration,
            {"status": "registered", "access_token": "a\nb"},
            "not the answer to a registration: an access token must have 1 to 8192 printable ASCII characters",
        ),
        (replies.decode_heartbeat, b"{", "not the answer to a heartbeat: "),
        (
            replies.decode_heartbeat,
            {"status": "fine"},
            'not the answer to a heartbeat: it should be an object whose status is "ok"',
        ),
        (replies.decode_heartbeat, ["ok"], "not the answer to a heartbeat: it should be an object"),
        (replies.decode_result, b"{", "not the answer to a result: "),
        (replies.decode_result, {"status": "maybe"}, "not the answer to a result: status 'maybe'"),
        (replies.decode_event, b"{", "not the answer to an event: "),
        (replies.decode_event, {"status": "maybe"}, "not the answer to an event: status 'maybe'"),
        (replies.decode_token, b"{", "not a token: "),
        (replies.decode_token, {"access_token": ""}, "not a token: an access token must have 1 to 8192 printable"),
    ],
)
def test_a_malformed_answer_is_reported_with_what_it_should_have_been(decode, body, problem):
    with pytest.raises(MalformedMessageError) as caught:
        decode(answer(body))
    assert str(caught.value).startswith(problem)


def test_texts_of_answers_that_logs_repeat_are_cut():
    long, version = "x" * 100_000, {"x-rxon-version": "1.0b17"}
    result = replies.decode_result(answer({"status": "ignored", "reason": long, "message": long}))
    event = replies.decode_event(answer({"status": "error", "code": long, "message": long}, **version))
    assert {len(each) for each in (result.reason, result.message, event.code, event.message)} == {200}
    assert answer({}, **{"x-rxon-version": "v" * 65}).version is None
    with pytest.raises(MalformedMessageError, match="a version of more than 64 characters"):
        replies.decode_registration(answer({"status": "registered", "version": "v" * 65}))


def test_a_registration_is_read_with_and_without_tokens():
    plain = replies.decode_registration(answer({"status": "registered", "version": "1.0b30", "warning": "w"}))
    assert (plain.version, plain.warning, plain.tokens) == ("1.0b30", "w", None)
    issued = {"access_token": "a", "refresh_token": "r", "expires_in": 60}
    tokens = replies.decode_registration(answer({"status": "registered", **issued})).tokens
    assert (tokens.access_token, tokens.refresh_token, tokens.expires_in) == ("a", "r", 60.0)
    assert replies.decode_token(answer(issued)) == tokens


@pytest.mark.parametrize(("length", "fits"), [(1, True), (8192, True), (8193, False)])
def test_an_access_token_fits_in_a_header(length, fits):
    with contextlib.nullcontext() if fits else pytest.raises(MalformedMessageError):
        assert replies.decode_token(answer({"access_token": "~" * length})).access_token == "~" * length


@pytest.mark.parametrize(
    ("fields", "final", "stale"),
    [
        ({"status": "accepted"}, True, False),
        ({"status": "ignored", "reason": "stale_task"}, True, True),
        ({"status": "ignored", "reason": "worker_mismatch"}, True, True),
        ({"status": "ignored", "reason": "job_not_found"}, True, False),
        ({"status": "ignored"}, True, False),
        ({"status": "accepted", "reason": "stale_task"}, True, False),
    ],
    ids=str,
)
def test_a_results_answer_is_final_and_perhaps_stale(fields, final, stale):
    reply = replies.decode_result(answer(fields))
    assert (reply.final, reply.stale, reply.reason) == (final, stale, fields.get("reason"))


@pytest.mark.parametrize(
    ("code", "stale"),
    [("STALE_TASK", True), ("worker_mismatch", True), ("job_cancelled", True), ("NOT_ALLOWED", False), (None, False)],
)
def test_a_refused_event_counts_if_an_orchestrator_refused_it(code, stale):
    refusal = {"status": "error", "code": code, "message": "no"}
    reply = replies.decode_event(answer(refusal, **{"x-rxon-version": "1.0b17"}))
    assert (reply.accepted, reply.stale, reply.code, reply.message) == (False, stale, code, "no")
    with pytest.raises(MalformedMessageError):
        replies.decode_event(answer(refusal))


def test_an_accepted_event_needs_no_announcement_and_nothing_else_counts_with_one():
    reply = replies.decode_event(answer({"status": "event_accepted", "code": "STALE_TASK"}))
    assert (reply.accepted, reply.stale) == (True, False)
    with pytest.raises(MalformedMessageError):
        replies.decode_event(answer({"status": "ok"}, **{"x-rxon-version": "1.0b17"}))


def test_a_command_is_read_from_bytes_and_texts():
    text = '{"command": "cancel_task", "task_id": "t", "job_id": "j"}'
    for data in (text, text.encode()):
        command = replies.decode_command(data)
        assert (command.command, command.task_id, command.job_id) == ("cancel_task", "t", "j")
    with pytest.raises(MalformedMessageError, match=r"^not a command: "):
        replies.decode_command(b"{")


@pytest.mark.parametrize(
    ("status", "accepted"), [(100, False), (199, False), (200, True), (299, True), (300, False), (404, False)]
)
def test_only_what_succeeded_is_an_answer(status, accepted):
    with contextlib.nullcontext() if accepted else pytest.raises(RejectedError):
        replies.raise_for_status(answer({}, status))


def test_a_refusal_names_its_origin_and_when_to_try_again():
    when = {"date": "Mon, 23 Nov 2026 12:00:00 GMT", "retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}
    for version in ({}, {"x-rxon-version": "1.0b17"}):
        with pytest.raises(RejectedError) as caught:
            replies.raise_for_status(answer({}, 429, **when, **version))
        refused = caught.value
        assert (refused.status, refused.retry_after, refused.from_orchestrator) == (429, 30.0, bool(version))


def test_a_204_means_no_task_whatever_its_body():
    assert replies.decode_task(answer({"job_id": "j", "task_id": "t", "type": "echo"}, 204)) is None


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        ("Sat, 28 Feb 2026 23:59:59 GMT", 1772323199.0),
        *(
            (f"Mon, 01 {month} 1973 00:00:00 GMT", start)
            for month, start in [("Jan", 94694400.0), ("Dec", 123552000.0)]
        ),
        ("Sun, 29 Feb 2026 00:00:00 GMT", None),
        ("Mon, 01 Foo 2026 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 24:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 CET", None),
        ("", None),
        (None, None),
    ],
)
def test_a_date_of_http_is_read_to_the_second(date, seconds):
    assert replies.parse_http_date(date) == seconds


@pytest.mark.parametrize(
    ("id_", "kept"), [("x" * 256, True), ("x" * 257, False), ("a\nb", False), ("", False), (5, False)]
)
def test_an_id_is_salvaged_if_it_can_be_one(id_, kept):
    expected = id_ if kept else None
    assert replies.salvage_ids(json.dumps({"job_id": id_, "task_id": "t"}).encode()) == (expected, "t")
    assert replies.salvage_ids(json.dumps({"job_id": "j", "task_id": id_}).encode()) == ("j", expected)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_without_ids_none_are_salvaged(body):
    assert replies.salvage_ids(body) == (None, None)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"x" * 201, "x" * 200),
        (b'{"error": "' + b"x" * 500 + b'"}', "x" * 200),
        (b'{"error": 5}', '{"error": 5}'),
        (b'{"message": "no"}', '{"message": "no"}'),
        (b"  spaced\xff ", "spaced\ufffd"),
        (b" <html>", "an HTML page (is there a proxy in between?)"),
        (b"", ""),
        (b"[" * 1600, "[" * 200),  # nested too deeply for a parser
        (b" " * 1599 + b"xy", "x"),  # the rest is not read
    ],
)
def test_the_words_of_a_refusal_are_short(body, detail):
    with pytest.raises(RejectedError) as caught:
        replies.raise_for_status(answer(body, 500))
    assert caught.value.detail == detail
