"""What each request looks like on the wire, in each dialect (RXON.md, "Transport", "Messages")."""

import json

import orjson
import pytest
from msgspec.structs import replace

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.protocol import codec
from avtomatika_worker.protocol.codec import Codec
from avtomatika_worker.protocol.dialects import DIALECTS, NEWEST, OLDEST, choose
from avtomatika_worker.protocol.messages import (
    CanonicalData,
    Capabilities,
    Event,
    FileMetadata,
    Heartbeat,
    Resources,
    ResultError,
    SkillInfo,
    TaskResult,
    WorkerRegistration,
    WorkerStatus,
)
from avtomatika_worker.protocol.signing import Signer

NOW = 1_800_000_000.9
KEY = "the configured token"
SKILLS = (SkillInfo(name="one", type="task"), SkillInfo(name="two", type="task"))
RESULT = TaskResult(job_id="j", task_id="t", worker_id="w1", origin_worker_id="w0", status="success", data={"n": 1})
EVENT = Event(
    event_id="e1", worker_id="w1", origin_worker_id="w1", event_type="progress", payload={}, origin_task_id="t"
)
EVERY = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.version)


def writer(token=None):
    numbers = iter(range(1, 100))
    return Codec("w1", token, lambda: f"nonce {next(numbers)}")


def sent(request):
    return json.loads(request.body)


def names(skills):
    return [each["name"] for each in skills]


def registration(**fields):
    return WorkerRegistration(
        worker_id="w1",
        worker_type="cpu",
        supported_skills=SKILLS,
        available_skills=("one",),
        resources=Resources(max_concurrent_tasks=2, cpu_cores=4, ram_gb=1.5, properties={"zone": "a"}),
        capabilities=Capabilities(hostname="h", ip_address="::1"),
        skills_hash="abc",
        **fields,
    )


def heartbeat(**fields):
    everything = {
        "worker_id": "w1",
        "status": WorkerStatus.IDLE,
        "skills_hash": "abc",
        "available_skills": ("one",),
        "hot_skills": ("two",),
        "hot_cache": ("two",),
        "skill_dependencies": {"two": ["model"]},
    }
    return Heartbeat(**{**everything, **fields})


def test_the_headers_name_the_worker_the_version_and_the_token_in_use():
    headers = writer(KEY).headers
    assert headers("t1", NEWEST) == {"X-Worker-ID": "w1", "X-RXON-Version": "1.0b17", "X-Worker-Token": "t1"}
    assert headers("t1", NEWEST) is not headers("t1", OLDEST)


def test_the_headers_follow_a_new_token_and_a_new_version_at_once():
    headers = writer().headers
    for token, dialect in [("t1", NEWEST), ("t2", NEWEST), ("t2", OLDEST), (None, OLDEST), ("t1", OLDEST)]:
        expected = {"X-Worker-ID": "w1", "X-RXON-Version": dialect.version}
        assert headers(token, dialect) == (expected | {"X-Worker-Token": token} if token else expected)
        assert headers(token, dialect) is headers(token, dialect), "they are made once"


def test_every_request_has_its_method_and_path():
    requests = {
        "register": writer().register(registration(), NEWEST, NOW),
        "heartbeat": writer().heartbeat(heartbeat(), NEWEST, NOW),
        "result": writer().result(RESULT, NEWEST, NOW),
        "event": writer().event(EVENT, NEWEST, NOW),
        "token": writer().access_token(),
        "refresh": writer().refresh_token("r1"),
    }
    assert {name: (each.method, each.path) for name, each in requests.items()} == {
        "register": ("POST", "/_worker/workers/register"),
        "heartbeat": ("PATCH", "/_worker/workers/w1"),
        "result": ("POST", "/_worker/tasks/result"),
        "event": ("POST", "/_worker/events"),
        "token": ("POST", "/_worker/auth/token"),
        "refresh": ("POST", "/_worker/auth/token/refresh"),
    }
    assert requests["token"].body is None
    assert sent(requests["refresh"]) == {"refresh_token": "r1"}
    assert codec.commands_path("w1") == "/_worker/ws/w1"


@EVERY
def test_a_poll_carries_the_skills_where_they_are_read(dialect):
    request = writer().poll(12.5, ("one", "two"), ("two", "one"), dialect)
    query = "?timeout=12.5&available_skills=one,two&hot_skills=two,one" if dialect is not OLDEST else ""
    assert (request.method, request.path, request.body) == ("GET", "/_worker/workers/w1/tasks/next" + query, None)


def test_a_poll_is_written_again_whenever_anything_in_it_changes():
    poll = writer().poll
    wishes = [
        (30.0, ("one",), (), NEWEST),
        (10.0, ("one",), (), NEWEST),
        (10.0, ("two",), (), NEWEST),
        (10.0, ("two",), ("two",), NEWEST),
        (10.0, ("two",), ("two",), OLDEST),
    ]
    assert len({poll(*wish).path for wish in wishes}) == len(wishes)
    assert poll(*wishes[0]) is poll(*wishes[0])


@EVERY
def test_a_registration_has_cores_and_memory_where_every_release_reads_them(dialect):
    resources = sent(writer().register(registration(), dialect, NOW))["resources"]
    assert resources["properties"] == {"cpu_cores": 4, "ram_gb": 1.5, "zone": "a"}
    assert (resources["cpu_cores"], resources["ram_gb"]) == (4, 1.5)


def test_a_registration_announces_only_available_skills_where_the_catalog_says_what_is_available():
    assert names(sent(writer().register(registration(), OLDEST, NOW))["supported_skills"]) == ["one"]
    for dialect in DIALECTS[1:]:
        message = sent(writer().register(registration(), dialect, NOW))
        assert names(message["supported_skills"]) == ["one", "two"]
        assert message["available_skills"] == ["one"]


def test_a_heartbeat_without_a_catalog_names_no_skills_to_old_orchestrators():
    message = sent(writer().heartbeat(heartbeat(), OLDEST, NOW))
    assert message.keys().isdisjoint({"supported_skills", "catalogue", "available_skills", "hot_skills"})
    assert (message["hot_cache"], message["skill_dependencies"]) == (["two"], {"two": ["model"]})


def test_a_heartbeat_with_a_catalog_gives_old_orchestrators_the_skills_themselves():
    message = sent(writer().heartbeat(heartbeat(catalogue=SKILLS), OLDEST, NOW))
    assert names(message["supported_skills"]) == ["one"]
    assert names(message["hot_skills"]) == ["two"]
    assert message.keys().isdisjoint({"catalogue", "available_skills"})


def test_a_heartbeat_names_skills_where_names_are_read():
    for dialect in DIALECTS[1:]:
        message = sent(writer().heartbeat(heartbeat(catalogue=SKILLS), dialect, NOW))
        assert names(message["supported_skills"]) == ["one", "two"]
        assert (message["available_skills"], message["hot_skills"]) == (["one"], ["two"])
        assert message.keys().isdisjoint({"catalogue", "hot_cache", "skill_dependencies"})
        assert "supported_skills" not in sent(writer().heartbeat(heartbeat(), dialect, NOW))


@EVERY
def test_a_draining_worker_is_busy_to_orchestrators_that_do_not_know_draining(dialect):
    draining, busy, idle = (
        sent(writer().heartbeat(heartbeat(status=status), dialect, NOW))["status"]
        for status in (WorkerStatus.DRAINING, WorkerStatus.BUSY, WorkerStatus.IDLE)
    )
    assert draining == ("busy" if dialect.version in {"1.0b7", "1.0b9"} else "draining")
    assert (busy, idle) == ("busy", "idle")


@EVERY
def test_a_result_has_what_the_task_gave_and_nothing_else(dialect):
    message = sent(writer().result(RESULT, dialect, NOW))
    assert message == {
        "job_id": "j",
        "task_id": "t",
        "worker_id": "w1",
        "origin_worker_id": "w0",
        "status": "success",
        "data": {"n": 1},
        "timestamp": 1_800_000_000,
        "nonce": "nonce 1",
    }


@EVERY
def test_a_result_carries_its_error_files_metadata_and_costs(dialect):
    result = replace(
        RESULT,
        status="failure",
        error=ResultError(code="PERMANENT_ERROR", message="no", details={"a": 1}),
        data_metadata={"f": FileMetadata(uri="s3://b/k", size=3, etag="x")},
        metadata={"m": 1},
        costs={"total": 2},
    )
    message = sent(writer().result(result, dialect, NOW))
    assert message["error"] == {"code": "PERMANENT_ERROR", "message": "no", "details": {"a": 1}}
    assert message["data_metadata"] == {"f": {"uri": "s3://b/k", "size": 3, "etag": "x"}}
    assert message["metadata"] == {"m": 1}
    assert message.get("costs") == ({"total": 2} if dialect.version in {"1.0b15", "1.0b16", "1.0b17"} else None)


def test_data_written_earlier_goes_out_in_the_form_of_the_current_orchestrator():
    old = replace(RESULT, data=CanonicalData(b'{"x":[null,1.0]}', "1.0b9"))
    assert b'"data":{"x":[null,1.0]}' in writer().result(old, choose("1.0b9").dialect, NOW).body, "as it was written"
    assert b'"data":{"x":[null,1]}' in writer().result(old, NEWEST, NOW).body
    assert b'"data":{"x":[1]}' in writer().result(old, choose("1.0b10").dialect, NOW).body


@pytest.mark.parametrize("origin", [None, "t"])
@EVERY
def test_an_event_names_its_task_where_that_is_read_and_has_no_nonce(dialect, origin):
    message = sent(writer().event(replace(EVENT, origin_task_id=origin), dialect, NOW))
    assert message.get("origin_task_id") == (origin if dialect.version not in {"1.0b7", "1.0b9"} else None)
    assert (message["event_id"], message["timestamp"]) == ("e1", 1_800_000_000)
    assert message["bubbling_chain"] == []
    assert "nonce" not in message
    assert "security" not in message
    assert "identity_chain" not in message


@pytest.mark.parametrize("write", [lambda w: w.result(RESULT, NEWEST, NOW), lambda w: w.event(EVENT, NEWEST, NOW)])
def test_a_signature_covers_all_but_security_and_the_chain_of_the_orchestrator(write):
    message = sent(write(writer(KEY)))
    security = message.pop("security")
    message.pop("bubbling_chain", None)
    signed = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
    assert security == {"signature": Signer(KEY).sign(signed), "signer_id": "w1"}


@pytest.mark.parametrize("token", [None, KEY])
def test_the_chain_of_a_task_is_sent_with_and_without_a_signature(token):
    chain = ("root", "hub-ü", "w1")
    result, event = (replace(each, identity_chain=chain) for each in (RESULT, EVENT))
    for request in (writer(token).result(result, NEWEST, NOW), writer(token).event(event, NEWEST, NOW)):
        security = sent(request)["security"]
        assert security["identity_chain"] == list(chain)
        assert security.keys() == ({"identity_chain", "signature", "signer_id"} if token else {"identity_chain"})


def test_each_attempt_at_a_result_is_another_message():
    write = writer(KEY).result
    first, second = sent(write(RESULT, NEWEST, NOW)), sent(write(RESULT, NEWEST, NOW))
    assert (first["nonce"], second["nonce"]) == ("nonce 1", "nonce 2")
    assert first["security"] != second["security"]


def test_each_attempt_at_an_event_is_the_same_message():
    write = writer(KEY).event
    assert write(EVENT, NEWEST, NOW) == write(EVENT, NEWEST, NOW)


@EVERY
def test_a_result_that_is_checked_is_one_that_can_be_sent(dialect):
    codec.check_result(RESULT, dialect)
    unsendable = replace(RESULT, metadata={"x": 2**64})
    for refuse in (lambda: codec.check_result(unsendable, dialect), lambda: writer().result(unsendable, dialect, NOW)):
        with pytest.raises(UnsendableValueError) as caught:
            refuse()
        assert caught.value.path == "$.metadata.x"


@EVERY
def test_a_result_is_checked_in_the_form_of_its_dialect(dialect):
    written = CanonicalData(b'{"x":1}', dialect.version)
    codec.check_result(replace(RESULT, data=written, costs={"total": 2}), dialect)
    unsendable = replace(RESULT, data=written, costs={"total": 2**64})
    if dialect.costs:
        with pytest.raises(UnsendableValueError):
            codec.check_result(unsendable, dialect)
    else:
        codec.check_result(unsendable, dialect)
