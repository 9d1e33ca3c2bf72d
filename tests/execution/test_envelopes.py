"""Which returned dict is an envelope, and what becomes of each of its parts."""

import dataclasses
import enum
import types
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker import Cancelled, ContractViolationError, Failed, InvalidInputError, Succeeded
from avtomatika_worker.execution.envelope import from_value
from avtomatika_worker.execution.outcome import from_exception
from avtomatika_worker.skills.contract import ENVELOPE_KEYS, ResultContract
from avtomatika_worker.skills.schema import is_data_type

REVIEWED = ResultContract("rate", ("needs_review",))


class Status(enum.Enum):
    FAILURE = "failure"


class Word(enum.StrEnum):
    CANCELLED = "cancelled"


class Ticket(TypedDict):
    status: str
    title: str


class Enveloped(TypedDict):
    status: str
    data: dict[str, Any]


@dataclasses.dataclass
class Reason:
    code: str
    message: str


def dropped(caplog):
    return [each.getMessage() for each in caplog.records if getattr(each, "action", "") == "result_keys_dropped"]


@pytest.mark.parametrize(
    ("returned", "outcome", "names"),
    [
        (
            {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "no"}, "details": {"a": 1}},
            Failed("PERMANENT_ERROR", "no"),
            "'details'",
        ),
        ({"status": "success", "data": {"x": 1}, "message": "done"}, Succeeded({"x": 1}), "'message'"),
        ({"status": "success", "x": 1}, Succeeded({}), "'x'"),
        ({"status": "needs_review", "data": {"x": 1}, "by": "me"}, Succeeded({"x": 1}, "needs_review"), "'by'"),
        ({"status": "failure", "error": "no", "message": "more"}, Failed("TRANSIENT_ERROR", "no"), "'message'"),
        ({"data": {}, "security": {"sig": "mine"}}, Succeeded({}), "'security'"),
        ({"status": "success", 1: {3j}, "y": 2}, Succeeded({}), "1, 'y'"),
    ],
    ids=str,
)
def test_unknown_keys_of_an_envelope_are_named_in_one_warning(returned, outcome, names, caplog):
    assert from_value(returned, REVIEWED) == outcome
    (message,) = dropped(caplog)
    assert f"; dropping its keys {names}" in message
    assert "skill rate " in message


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"status": "cancelled", "message": "enough"}, "enough"),
        ({"status": "cancelled", "error": {"message": "too late"}}, "too late"),
        ({"status": Word.CANCELLED, "error": None}, "the skill ended the task as cancelled"),
    ],
    ids=str,
)
def test_a_skill_that_reports_cancelled_is_cancelled_and_its_reason_kept(returned, message, caplog):
    outcome = from_value(returned)
    assert isinstance(outcome, Cancelled)
    assert outcome.message == message
    assert dropped(caplog) == []


def test_what_a_cancelled_task_cannot_carry_is_named(caplog):
    assert isinstance(from_value({"status": "cancelled", "data": {"half": 1}, "costs": {"tokens": 1}}), Cancelled)
    (message,) = dropped(caplog)
    assert "'data', 'costs'" in message


@pytest.mark.parametrize(
    "returned",
    [
        {"status": "failed", "error": "disk full"},
        {"status": "error", "error": {"code": "PERMANENT_ERROR", "message": "disk full"}},
        {"status": "FAILURE", "error": RuntimeError("disk full"), "details": 3j},
        {"status": "", "error": ["disk full"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("contract", [ResultContract(), REVIEWED], ids=["undeclared", "declared"])
def test_an_unknown_status_names_the_allowed_ones_and_keeps_the_reason(returned, contract):
    with pytest.raises(ContractViolationError) as caught:
        from_value(returned, contract)
    assert all(each in str(caught.value) for each in ("success", "failure", "cancelled", *contract.declared))
    assert "disk full" in str(caught.value)
    assert "disk full" in str(caught.value.details["error"])
    assert caught.value.details["allowed"] == list(contract.statuses)


@pytest.mark.parametrize(
    "returned",
    [{"status": "done"}, {"status": "open", "data": 1, "title": "x"}, {"status": "Success", "data": {}}, {"status": 5}],
    ids=str,
)
def test_an_invalid_status_is_a_contract_violation_in_an_envelope(returned):
    with pytest.raises(ContractViolationError, match="status"):
        from_value(returned)


@pytest.mark.parametrize("status", ["success", "needs_review"])
def test_a_success_with_an_error_is_a_contradiction(status):
    with pytest.raises(ContractViolationError, match="disk full"):
        from_value({"status": status, "error": {"message": "disk full"}, "data": {}}, REVIEWED)


@pytest.mark.parametrize("error", [None, "", {}, []], ids=repr)
def test_an_empty_error_beside_success_or_data_is_ignored(error):
    assert from_value({"status": "success", "data": {"x": 1}, "error": error}) == Succeeded({"x": 1})
    assert from_value({"data": {"x": 1}, "error": error}) == Succeeded({"x": 1})


def test_an_empty_error_alone_is_a_failure():
    assert from_value({"error": str(TimeoutError())}) == Failed("TRANSIENT_ERROR", "the skill reported a failure")


@pytest.mark.parametrize(
    ("returned", "failed"),
    [
        ({"status": "failure", "message": "disk full"}, Failed("TRANSIENT_ERROR", "disk full")),
        ({"status": Status.FAILURE}, Failed("TRANSIENT_ERROR", "the skill reported a failure")),
        ({"status": None, "error": "no"}, Failed("TRANSIENT_ERROR", "no")),
        (
            {"status": "failure", "error": {"code": "INVALID_INPUT_ERROR"}, "message": "too wide"},
            Failed("INVALID_INPUT_ERROR", "too wide"),
        ),
        ({"error": InvalidInputError("no", {"a": 1})}, Failed("INVALID_INPUT_ERROR", "no", {"a": 1})),
        ({"error": ValueError("no")}, Failed("TRANSIENT_ERROR", "ValueError: no", {"exception": "ValueError"})),
        ({"error": Reason("PERMANENT_ERROR", "never")}, Failed("PERMANENT_ERROR", "never")),
        ({"error": ["a", 1]}, Failed("TRANSIENT_ERROR", '["a",1]')),
        ({"error": 5}, Failed("TRANSIENT_ERROR", "5")),
        (
            {"error": {"code": 507, "message": "full", "disk": "/", "details": {"free": 0}}},
            Failed("TRANSIENT_ERROR", "full", {"free": 0, "disk": "/", "code": 507}),
        ),
        (
            {"error": {"message": "no", "details": {"a": 1}, "a": 2}},
            Failed("TRANSIENT_ERROR", "no", {"a": 1, "error.a": 2}),
        ),
        ({"error": {"message": {"why": "full"}}}, Failed("TRANSIENT_ERROR", '{"why":"full"}')),
        ({"error": {"code": "DISK_FULL", "message": "no"}}, Failed("DISK_FULL", "no")),
        ({"error": {"message": "no", "details": ["a"]}}, Failed("TRANSIENT_ERROR", "no", {"details": ["a"]})),
        (
            {"error": {"message": "no", "details": {"loss": float("nan"), "epoch": 3}}},
            Failed("TRANSIENT_ERROR", "no", {"loss": "nan", "epoch": 3}),
        ),
    ],
    ids=str,
)
def test_nothing_that_says_why_a_task_failed_is_lost(returned, failed, caplog):
    assert from_value(returned) == failed
    assert dropped(caplog) == []


@pytest.mark.parametrize(
    "returned",
    [
        {"status": "open", "title": "x"},
        {"status": "failed", "title": "x"},
        {"status": 200, "data": {}, "headers": {}},
        {"error": "E1", "page": 3},
        {"data": [], "page": 3},
    ],
    ids=str,
)
def test_a_dict_of_another_kind_is_data(returned):
    assert from_value(returned, REVIEWED) == Succeeded(returned)


def test_any_mapping_may_be_an_envelope():
    assert from_value(types.MappingProxyType({"status": "failure", "error": "no", "x": 1})) == Failed(
        "TRANSIENT_ERROR", "no"
    )


def test_a_dict_of_a_skill_that_returns_a_typed_dict_is_data():
    data = {"status": "failure", "title": "x"}
    assert from_value(data, ResultContract("ticket", is_data=True)) == Succeeded(data)


@pytest.mark.parametrize(
    ("annotation", "data"),
    [
        (Ticket, True),
        (Ticket | None, True),
        (Annotated[Ticket, "a ticket"], True),
        (Ticket | dict[str, Any], False),
        (Ticket | Enveloped, False),
        (Enveloped, False),
        (dict, False),
        (dict[str, str], False),
        (Any, False),
        (None, False),
        (int, False),
    ],
    ids=str,
)
def test_a_typed_dict_with_fields_of_its_own_is_data(annotation, data):
    assert is_data_type(annotation) is data


@pytest.mark.parametrize(
    "outcome", [Succeeded({}, "bogus"), Succeeded({}, "failure"), Succeeded([1])], ids=lambda each: str(each)[:40]
)
def test_an_outcome_that_no_result_may_carry_is_a_contract_violation(outcome):
    with pytest.raises(ContractViolationError):
        from_value(outcome, REVIEWED)
    assert from_value(Succeeded({}, "needs_review"), REVIEWED) == Succeeded({}, "needs_review")


_VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9) | st.just({"message": "full"})
_KEYS = st.sampled_from([*sorted(ENVELOPE_KEYS), "message", "details", "title"])
_STATUSES = st.sampled_from(["success", "failure", "cancelled", "needs_review", "failed", "", None])


@given(fields=st.dictionaries(_KEYS, _VALUES), status=_STATUSES)
def test_no_dict_with_an_error_ends_as_a_success_that_hides_it(fields, status):
    returned = {**fields, "status": status, "error": {"message": "disk full"}}
    outcome = read(returned)
    if isinstance(outcome, Succeeded):
        assert outcome.data["error"] == {"message": "disk full"}  # it is data, and all there
    else:
        assert "disk full" in outcome.message or "must be an object" in outcome.message


def read(returned):
    try:
        return from_value(returned, REVIEWED)
    except ContractViolationError as error:
        return from_exception(error)


# ---------------------------------------------------------------------------------------------- what cannot be sent


@pytest.mark.parametrize("part", ["data", "metadata", "costs"])
@pytest.mark.parametrize("value", [{"x": 3j}, {"x": {1: {3j}}}], ids=["complex", "nested"])
def test_a_failure_with_what_cannot_be_sent_stays_the_failure_it_is(part, value):
    envelope = {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "disk full"}, part: value}
    for returned in (envelope, Failed("PERMANENT_ERROR", "disk full", **{part: value})):
        outcome = from_value(returned)
        assert outcome.code == "PERMANENT_ERROR"
        assert outcome.message.startswith("disk full (its other contents were dropped: ")
        assert f"$.{part}.x" in outcome.message
        assert (outcome.data, outcome.metadata, outcome.costs) == ({}, None, {})


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (Succeeded({"x": 3j}), r"\$\.data\.x: complex is not JSON-able"),
        (Succeeded({}, metadata={"x": 3j}), r"\$\.metadata\.x"),
        (Succeeded({}, costs={"x": 3j}), r"\$\.costs\.x"),
        (Succeeded({}, metadata=[1]), "metadata must be an object, not list"),
        (Succeeded({}, costs="3 EUR"), "costs must be an object, not str"),
        (Succeeded({}, data_metadata={"x": 5}), "data_metadata must map names to FileMetadata"),
        (Succeeded([1]), "data of Succeeded must be a dict, not list"),
        (Succeeded({}, status=5), "status 5 is not one of success"),
        (Succeeded({}, status=["success"]), r"status \['success'\] is not one of success"),
        (Cancelled("because"), "must be a CancelReason, not 'because'"),
    ],
    ids=repr,
)
def test_an_outcome_that_no_result_can_carry_says_what_is_wrong(returned, problem):
    with pytest.raises(ContractViolationError, match=problem):
        from_value(returned)


def test_the_values_of_an_outcome_are_written_as_those_of_a_dict():
    outcome = from_value(Succeeded({"by": Word.CANCELLED, "at": (1, Reason("a", "b"))}, costs={"n": Status.FAILURE}))
    assert outcome == Succeeded({"by": "cancelled", "at": [1, {"code": "a", "message": "b"}]}, costs={"n": "failure"})


@pytest.mark.parametrize("error", ["caf\udce9", {"message": "caf\udce9"}], ids=["text", "object"])
def test_a_reason_that_is_not_unicode_is_repaired_like_that_of_an_exception(error):
    assert from_value({"status": "failure", "error": error}).message == "caf?"
    assert from_exception(ValueError("caf\udce9")).message == "ValueError: caf?"


@pytest.mark.parametrize("part", [None, 5, "", {"a": 1}, 3j, "\ud800"], ids=repr)
def test_a_failure_made_of_anything_is_a_failure(part):
    outcome = from_value(Failed(part, part, part, data=part, metadata=part, costs=part, data_metadata=part))
    assert isinstance(outcome, Failed)
    assert outcome.code
    assert outcome.message
    (outcome.code + outcome.message).encode()


# ---------------------------------------------------------------------------------------------- statuses in data


def statuses_in_data(caplog):
    return [each.getMessage() for each in caplog.records if getattr(each, "action", "") == "status_in_data"]


def test_a_status_that_is_data_is_named_in_one_warning_each(caplog):
    contract = ResultContract("rate", ("needs_review",))
    for _ in range(2):
        for status in ("failed", "done"):
            returned = {"status": status, "message": "disk full"}
            assert from_value(returned, contract) == Succeeded(returned)
    first, second = statuses_in_data(caplog)
    assert "skill rate " in first
    assert "'failed'" in first
    assert "'done'" in second
    assert all(each in first for each in ("success", "failure", "cancelled", "needs_review", "raise an error"))


def test_statuses_in_data_are_not_named_without_end(caplog):
    contract = ResultContract("rate")
    for number in range(1000):
        from_value({"status": f"order {number}", "n": number}, contract)
    assert len(statuses_in_data(caplog)) == 20


@pytest.mark.parametrize(
    ("returned", "is_data"), [(Reason("status", "failed"), False), ({"status": "open", "title": "x"}, True)], ids=repr
)
def test_the_status_of_a_type_causes_no_warning(returned, is_data, caplog):
    from_value(returned, ResultContract("rate", is_data=is_data))
    assert statuses_in_data(caplog) == []
