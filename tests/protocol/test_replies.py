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
