"""A signed task that is altered on its way is refused, or runs as it was signed: nothing in between."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avtomatika_worker import Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault
from avtomatika_worker.errors import UntrustedTaskError
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import DIALECTS, NEUTRAL, NEWEST
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.protocol.signing import Signer
from avtomatika_worker.protocol.task_verification import TaskGuard
from avtomatika_worker.testing import WorkerHarness

KEY = "the orchestrator's key"
GUARD = TaskGuard(KEY)
NAMES = st.sampled_from(["to", "amounts", "dry_run", "n", "é", "e\u0301", "type", "params", "sig", ""])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-3, 3)
    | st.floats(-1e15, 1e15)
    | st.sampled_from([1.0, -0.0, 0.0, 1e15, 0.1, 2.0**53])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=3), max_leaves=8)
TASKS = st.fixed_dictionaries(
    {
        "job_id": st.just("j1"),
        "task_id": st.just("t1"),
        "type": st.sampled_from(["pay", "echo"]),
        "params": st.dictionaries(NAMES, VALUES, max_size=4),
        "policy": st.none() | st.just({"allowed_skills": ["pay", "echo"]}),
        "priority": st.sampled_from([1, 1.0, 0.5, None]),
        "timestamp": st.sampled_from([1, 1.5]),
        "metadata": st.none() | st.dictionaries(NAMES, VALUES, max_size=2),
    }
)
VERSIONS = st.sampled_from([None, *(each.version for each in DIALECTS), "1.0b7\n", "1.0b99", "2", "", "1.0b１７"])
LINKS = st.sampled_from([*DIALECTS, NEUTRAL])


def sealed(task):
    """Return the body of a task as its orchestrator sends it."""
    return json.dumps({**task, "sig": Signer(KEY).sign(canonical_bytes(task, NEWEST))}).encode()


def answer(body, version=None):
    return Response(200, {"x-rxon-version": version} if version is not None else {}, body)


def admitted(body, version=None, link=NEWEST):
    """Return the task that runs, as text (in which 1, 1.0 and True are three things); None for none."""
    try:
        return repr(GUARD.admit(answer(body, version), link))
    except UntrustedTaskError:
        return None


@st.composite
def rewritten(draw, body):
    """The same members written differently, and some that mean nothing to a canonical form."""
    value = json.loads(body)
    places = list(_containers(value))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.sampled_from(places))
        item = draw(st.none() | SCALARS | st.sampled_from([[], {}, [None], {"a": None}]))
        if isinstance(place, list):
            place.insert(draw(st.integers(0, len(place))), item)
        elif place and draw(st.booleans()):
            key = draw(st.sampled_from(sorted(place)))
            old = place[key]
            place[key] = float(old) if isinstance(old, int) and abs(old) < 2**63 else item
        else:
            place[draw(NAMES | st.sampled_from(["deadline", "security", "orchestrator_signature", "_signature"]))] = (
                item
            )
    return json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))).encode()


def _containers(value):
    if isinstance(value, dict | list):
        yield value
        for each in value.values() if isinstance(value, dict) else value:
            yield from _containers(each)


PIECES = [
    b"null,",
    b",null",
    b'"dry_run":null,',
    b'"params":{},',
    b'"type":"rm",',
    b'"\\u0074ype":"rm",',
    b".0",
    b"e0",
    b"-",
    b"0",
    b"1" * 5000,
    b"\\ud800",
    b"\\u0000",
    b"\xff",
    b"\xef\xbb\xbf",
    b"NaN",
    b"1e999",
    b"[" * 200,
    b"{}",
    b" ",
]


@st.composite
def spliced(draw, body):
    """The body with some bytes replaced, left out or put in."""
    for _ in range(draw(st.integers(1, 3))):
        commas = [found.end() for found in re.finditer(rb"[\[{,:]|[0-9]", body)] or [0]
        start = draw(st.sampled_from(commas) | st.integers(0, len(body)))
        stop = min(len(body), start + draw(st.integers(0, 3)))
        body = body[:start] + draw(st.sampled_from(PIECES) | st.binary(max_size=3)) + body[stop:]
    return body


@given(st.data(), TASKS, VERSIONS, LINKS)
@settings(max_examples=500)
def test_a_manipulated_signed_task_runs_as_it_was_signed_or_not_at_all(data, task, version, link):
    body = sealed(task)
    original = admitted(body)
    assert original is not None
    altered = data.draw(rewritten(body) | spliced(body))
    assert admitted(altered, version, link) in {None, original}


@given(TASKS)
def test_what_runs_is_made_of_the_signed_bytes(task):
    found = GUARD.admit(answer(sealed(task)), NEWEST)
    assert canonical_bytes({"p": found.params or {}}, NEWEST) == canonical_bytes({"p": task["params"]}, NEWEST)
    assert found.type == task["type"]


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 299])
def test_no_status_lets_an_unsigned_task_in(status):
    body = json.dumps({"job_id": "j", "task_id": "t", "type": "pay"}).encode()
    with pytest.raises(UntrustedTaskError):
        GUARD.admit(Response(status, {}, body), NEWEST)


ALTERATIONS = {
    "a null member": (b'"to": "bob"', b'"to": "bob", "dry_run": null'),
    "a float in place of an int": (b"[10, 20]", b"[10.0, 2e1]"),
    "a null in an array": (b"[10, 20]", b"[null, 10, 20]"),
    "a type in front of the signed one": (b'{"job_id"', b'{"type": "refund", "job_id"'),
}


@pytest.mark.parametrize("version", ["1.0b17", "1.0b11"])
@pytest.mark.parametrize("name", ALTERATIONS)
async def test_a_running_worker_never_runs_an_altered_task(name, version):
    """The orchestrator's own answer, changed by someone on the way, header included."""
    ran = []
    worker = Worker()

    @worker.skill
    async def pay(params: dict):
        ran.append(params)

    @worker.skill
    async def refund(params: dict):
        ran.append("refund")

    task = {"job_id": "j9", "task_id": "t9", "type": "pay", "params": {"to": "bob", "amounts": [10, 20]}}
    old, new = ALTERATIONS[name]
    body = sealed(task).replace(old, new)
    assert body != sealed(task)
    async with (
        EmbeddedOrchestrator(secret_key=KEY, poll_time=0.2) as orchestrator,
        WorkerHarness(worker, orchestrator=orchestrator, environ={"ORCHESTRATOR_SECRET_KEY": KEY}) as harness,
    ):
        fault = Fault("poll", "body", status=200, body=body, headers={"X-RXON-Version": version})
        orchestrator.inject(fault)
        await orchestrator.wait_for(lambda: fault.used)
        await harness.run("pay", {"last": True})
    assert ran[-1] == {"last": True}
    assert [json.dumps(each) for each in ran[:-1]] in ([], [json.dumps({"amounts": [10, 20], "to": "bob"})])
