"""Which tasks are let in: signatures, policies, nesting. The signatures are those of real orchestrators' own code."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.errors import MalformedMessageError, UntrustedTaskError
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import DIALECTS, NEWEST
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.protocol.signing import Signer
from avtomatika_worker.protocol.task_verification import TaskGuard

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "signing-vectors.json").read_text("utf-8"))
KEY = "the orchestrator's key"
GUARD = TaskGuard(KEY)
TASK = {"job_id": "j", "task_id": "t", "type": "echo", "params": {"n": 1, "text": "ü"}, "priority": 0.5, "step": 1}
SCALARS = st.integers(-10, 10) | st.floats(allow_nan=False, allow_infinity=False, width=16) | st.text(max_size=5)
PARAMS = st.dictionaries(st.text(max_size=5), SCALARS | st.lists(SCALARS, max_size=3), max_size=5)


def recorded_signatures():
    """Yield messages and what the code of orchestrators signs them with: tasks are signed alike.

    But for one thing: of a message, a field ``_signature`` is left out, and of a task ``sig``.
    """
    for case in (each for each in VECTORS["cases"] if '"_signature"' not in each["wire"]):
        for expected in case["expected"]:
            for version in expected["versions"]:
                wanted = version == NEWEST.version and "signature" in expected and not case["ignore_fields"]
                if wanted and case["wire"].startswith("{") and '"security"' not in case["wire"]:
                    yield pytest.param(case["wire"], expected["signature"], id=case["name"])


def answer(task, **headers):
    return Response(200, headers, task if isinstance(task, bytes) else json.dumps(task).encode())


def signed(task, key=KEY, dialect=NEWEST):
    return {**task, "sig": Signer(key).sign(canonical_bytes(task, dialect))}


def exactly(task):
    """Return a task as text: 1, 1.0 and True are equal in Python, and three things to a skill."""
    return repr(task)


@pytest.mark.parametrize(("wire", "signature"), list(recorded_signatures()))
def test_what_a_real_orchestrator_signed_is_taken_and_nothing_else(wire, signature):
    inner = wire.strip()[1:-1]
    task = "{" + (inner + "," if inner else "") + '"sig":"%s"}'
    with pytest.raises(MalformedMessageError):  # authentic, and (being no task) malformed
        TaskGuard(VECTORS["secret"]).admit(answer((task % signature).encode()), NEWEST)
    for key, wrong in [(VECTORS["secret"], signature[::-1]), ("another key", signature)]:
        with pytest.raises(UntrustedTaskError):
            TaskGuard(key).admit(answer((task % wrong).encode()), NEWEST)


@given(PARAMS, st.sampled_from(sorted(TASK)), SCALARS)
def test_a_task_that_was_changed_anywhere_after_it_was_signed_is_refused(params, field, value):
    task = signed({**TASK, "params": params})
    original = GUARD.admit(answer(task), NEWEST)
    assert original.params == params
    try:
        admitted = GUARD.admit(answer({**task, field: value}), NEWEST)
    except UntrustedTaskError:
        return
    assert exactly(admitted) == exactly(original)


@given(
    st.binary(max_size=100) | st.sampled_from([b"[]", b"null", b"{", b'{"sig":1}', b'{"sig":"\xc3\xa9"}', b"[" * 9999])
)
def test_anything_but_a_signed_task_is_refused_with_the_reason(body):
    if body:
        with pytest.raises(UntrustedTaskError) as caught:
            GUARD.admit(answer(body), NEWEST)
        assert caught.value.reason in {"unsigned", "bad_signature"}


def test_the_refusal_of_a_malformed_task_says_why_its_signature_could_not_be_checked():
    with pytest.raises(UntrustedTaskError, match=r"^its signature cannot be checked: it is malformed$") as caught:
        GUARD.admit(answer(b'{"sig":'), NEWEST)
    assert caught.value.reason == "bad_signature"


def test_the_ids_of_a_refused_task_are_kept_so_that_it_can_be_answered():
    with pytest.raises(UntrustedTaskError, match="it is not signed") as caught:
        GUARD.admit(answer(TASK), NEWEST)
    assert (caught.value.job_id, caught.value.task_id) == ("j", "t")
    with pytest.raises(UntrustedTaskError) as caught:
        GUARD.admit(answer({**TASK, "job_id": "x" * 1000, "task_id": "a\nb"}), NEWEST)
    assert (caught.value.job_id, caught.value.task_id) == (None, None)


def test_a_key_that_is_there_twice_counts_the_same_for_the_signature_and_for_the_skill():
    body = json.dumps(signed({**TASK, "type": "harmless"})).encode()
    twice = body.replace(b'"type": "harmless"', b'"type": "harmful", "type": "harmless"')
    assert GUARD.admit(answer(twice), NEWEST).type == "harmless"
    with pytest.raises(UntrustedTaskError):
        GUARD.admit(answer(body.replace(b'"type": "harmless"', b'"type": "harmless", "type": "harmful"')), NEWEST)


def test_unsigned_tasks_are_let_in_only_when_that_was_asked_for_and_wrong_signatures_never():
    lenient = TaskGuard(KEY, signature_required=False)
    assert lenient.admit(answer(TASK), NEWEST).type == "echo"
    assert not lenient.wants_signatures
    with pytest.raises(UntrustedTaskError, match="not the orchestrator's"):
        lenient.admit(answer(signed(TASK, key="another")), NEWEST)
    assert TaskGuard().admit(answer(signed(TASK, key="any")), NEWEST).type == "echo"


def test_a_key_alone_requires_signatures_and_without_one_none_are_wanted():
    guard = TaskGuard(KEY)
    assert guard.wants_signatures
    with pytest.raises(UntrustedTaskError, match="not signed"):
        guard.admit(answer(TASK), NEWEST)
    assert not TaskGuard().wants_signatures


def test_the_refusal_says_when_the_orchestrator_is_too_old_to_sign():
    with pytest.raises(UntrustedTaskError, match=r"orchestrators of protocol 1\.0b13 do not sign tasks"):
        GUARD.admit(answer(TASK), next(each for each in DIALECTS if each.version == "1.0b13"))


def test_the_refusal_of_an_unsigned_task_says_no_more_where_the_orchestrator_could_sign():
    with pytest.raises(UntrustedTaskError, match=r"^it is not signed$"):
        GUARD.admit(answer(TASK), NEWEST)


def test_a_version_that_signs_no_tasks_is_refused_whatever_names_it():
    """Headers are not signed: they must not select rules under which more counts as signed."""
    task = answer(signed({**TASK, "params": {"a": [None, 1]}}))
    assert GUARD.admit(task, NEWEST).params == {"a": [None, 1]}
    for older in (each for each in DIALECTS if not each.signed_tasks):
        forged = signed({**TASK, "params": {"a": [None, 1]}}, dialect=older)
        named = answer(forged, **{"x-rxon-version": older.version})
        for sent, dialect in [(named, NEWEST), (answer(forged), older), (answer(TASK), older)]:
            with pytest.raises(
                UntrustedTaskError, match=f"orchestrators of protocol {older.version} do not sign tasks"
            ):
                GUARD.admit(sent, dialect)
        assert GUARD.admit(answer(signed(TASK), **{"x-rxon-version": NEWEST.version}), older).type == "echo"


@pytest.mark.parametrize("allowed", [["echo"], ["other", "echo"], None])
def test_a_policy_that_allows_the_skill_or_says_nothing_lets_the_task_in(allowed):
    assert TaskGuard().admit(answer({**TASK, "policy": {"allowed_skills": allowed}}), NEWEST).type == "echo"


@pytest.mark.parametrize("allowed", [[], ["other"], ["ech"], "echo", {"echo": 1}, 7, [["echo"]]], ids=str)
def test_a_policy_that_does_not_allow_the_skill_refuses_the_task(allowed):
    task = {**TASK, "policy": {"allowed_skills": allowed}}
    for guard, sent in [(TaskGuard(), task), (GUARD, signed(task))]:
        with pytest.raises(UntrustedTaskError, match="does not allow the skill 'echo'") as caught:
            guard.admit(answer(sent), NEWEST)
        assert (caught.value.job_id, caught.value.task_id) == ("j", "t")
        assert caught.value.reason == "not_allowed"


@given(st.integers(0, 60), st.sampled_from(["list", "dict"]), st.sampled_from(["params", "metadata", "policy"]))
def test_a_task_nested_deeper_than_allowed_is_malformed_and_named(levels, kind, field):
    value: object = "x"
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    wide = [[]] * 40  # many brackets are not depth
    sent = answer({**TASK, "params": {"wide": wide}, field: {"v": value, "wide": wide}})
    guard = TaskGuard(max_nesting=30)
    if levels < 30:
        assert guard.admit(sent, NEWEST) is not None
    else:
        with pytest.raises(MalformedMessageError, match="MAX_TASK_NESTING") as caught:
            guard.admit(sent, NEWEST)
        assert (caught.value.job_id, caught.value.task_id) == ("j", "t")


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_task_nested_deeper_than_allowed_is_malformed_whichever_brackets_it_has(kind):
    value: object = "x"
    for _ in range(40):
        value = [value] if kind == "list" else {"a": value}
    with pytest.raises(MalformedMessageError, match="nested deeper than 30 levels"):
        TaskGuard(max_nesting=30).admit(answer({**TASK, "params": {"v": value}}), NEWEST)


def test_an_empty_poll_yields_none_with_a_key_too():
    for guard in (TaskGuard(), GUARD):
        assert guard.admit(Response(204, {}, b""), NEWEST) is None
        with pytest.raises((MalformedMessageError, UntrustedTaskError)):  # that is no orchestrator's answer to a poll
            guard.admit(Response(200, {}, b""), NEWEST)


def test_the_key_is_in_no_text():
    assert KEY not in repr(GUARD)
    with pytest.raises(UntrustedTaskError) as caught:
        GUARD.admit(answer({**TASK, "sig": "0" * 64}), NEWEST)
    assert KEY not in str(caught.value)
