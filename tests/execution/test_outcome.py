"""What a skill returned or raised, as the outcome of its task."""

import contextlib
import dataclasses
import enum
import errno
import math
import sqlite3
from typing import NamedTuple

import msgspec
import pydantic
import pytest

from avtomatika_worker import Cancelled, ContractViolationError, Failed, InvalidInputError, PermanentError, Succeeded
from avtomatika_worker.execution.envelope import from_value
from avtomatika_worker.execution.outcome import from_exception


class Order(pydantic.BaseModel):
    status: str


@dataclasses.dataclass
class Reply:
    data: dict
    error: str | None = None


class Pair(NamedTuple):
    status: str
    data: int


class Struct(msgspec.Struct):
    error: str


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("returned", "data"),
    [
        (None, {}),
        ({}, {}),
        ({"x": 1}, {"x": 1}),
        (5, {"result": 5}),
        ("text", {"result": "text"}),
        ([1, None], {"result": [1, None]}),
        (Color.RED, {"result": "red"}),
        ({"metadata": {"a": 1}}, {"metadata": {"a": 1}}),
        ({"status": "open", "title": "x"}, {"status": "open", "title": "x"}),
        ({"status": 200, "data": {}, "headers": {}}, {"status": 200, "data": {}, "headers": {}}),
    ],
    ids=str,
)
def test_anything_but_an_envelope_is_the_data(returned, data):
    assert from_value(returned) == Succeeded(data)


@pytest.mark.parametrize(
    ("returned", "data"),
    [
        (Order(status="open"), {"status": "open"}),
        (Reply({"q": 1}), {"data": {"q": 1}, "error": None}),
        (Pair("open", 1), {"status": "open", "data": 1}),
        (Struct("none"), {"error": "none"}),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_model_with_the_fields_of_an_envelope_is_data_all_the_same(returned, data):
    assert from_value(returned) == Succeeded(data)


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        ({"status": "success", "data": {"x": 1}}, Succeeded({"x": 1})),
        ({"data": [1]}, Succeeded({"result": [1]})),
        ({"data": Order(status="open")}, Succeeded({"status": "open"})),
        (
            {"data": {}, "metadata": {"m": 1}, "costs": {"tokens": 7}},
            Succeeded({}, metadata={"m": 1}, costs={"tokens": 7}),
        ),
        ({"error": "no"}, Failed("TRANSIENT_ERROR", "no")),
        (
            {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "never", "details": {"a": 1}}},
            Failed("PERMANENT_ERROR", "never", {"a": 1}),
        ),
    ],
    ids=str,
)
def test_an_envelope_is_opened(returned, outcome):
    assert from_value(returned) == outcome


def test_a_skill_may_end_its_task_as_cancelled():
    assert isinstance(from_value({"status": "cancelled"}), Cancelled)


@pytest.mark.parametrize(
    "returned", [{"status": 5}, {"data": {}, "costs": [1]}, {"data": {}, "metadata": "x"}], ids=str
)
def test_a_broken_envelope_is_a_contract_violation(returned):
    with pytest.raises(ContractViolationError):
        from_value(returned)


def test_what_cannot_be_sent_is_a_contract_violation_that_names_its_path():
    with pytest.raises(ContractViolationError) as caught:
        from_value({"a": [1, object()]})
    assert caught.value.details == {"path": "$.a[1]"}


def test_errors_of_ours_keep_code_and_details_and_others_are_transient_without_traceback():
    assert from_exception(InvalidInputError("no", {"why": 1})) == Failed("INVALID_INPUT_ERROR", "no", {"why": 1})
    other = from_exception(KeyError("gone"))
    assert (other.code, other.message, other.details) == (
        "TRANSIENT_ERROR",
        "KeyError: 'gone'",
        {"exception": "KeyError"},
    )
    assert "Traceback" not in other.message


@pytest.mark.parametrize(
    ("details", "sent"),
    [
        ({"loss": math.nan, "epoch": 3}, {"loss": "nan", "epoch": 3}),
        ({"big": 2**80}, {"big": str(2**80)}),
        ({"where": object}, {"where": "<class 'object'>"}),
        ({"\ud800": 1}, {"?": 1}),
        ({"deep": {"scores": [1, math.inf]}}, {"deep": "{'scores': [1, inf]}"}),
    ],
    ids=str,
)
def test_details_that_cannot_be_sent_are_sent_as_text_and_do_not_hide_the_error(details, sent):
    failed = from_exception(PermanentError("diverged", details))
    assert (failed.code, failed.message, failed.details) == ("PERMANENT_ERROR", "diverged", sent)


def test_the_only_error_of_a_group_is_what_the_task_ends_with():
    group = ExceptionGroup("unhandled errors in a TaskGroup", [ExceptionGroup("", [PermanentError("never")])])
    assert from_exception(group) == Failed("PERMANENT_ERROR", "never")
    two = from_exception(ExceptionGroup("both", [PermanentError("a"), PermanentError("b")]))
    assert two.code == "TRANSIENT_ERROR"
    assert "PermanentError: a; PermanentError: b" in two.message


def from_cause():
    try:
        raise OSError(errno.ENOSPC, "No space left on device", "out.bin")
    except OSError as error:
        raise RuntimeError("could not write") from error


def while_handling():
    try:
        raise MemoryError
    except MemoryError:
        raise ValueError("and then") from ExceptionGroup("several", [KeyError("a"), OSError(errno.EDQUOT, "quota")])


def in_a_group():
    raise ExceptionGroup(
        "two", [ValueError("a"), ExceptionGroup("more", [KeyError("b"), OSError(errno.ENOSPC, "full")])]
    )


def in_sqlite():
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA max_page_count=2")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")


@pytest.mark.parametrize("build", [from_cause, while_handling, in_a_group, in_sqlite])
def test_a_full_disk_or_memory_is_named_however_it_is_wrapped(build):
    with pytest.raises(Exception) as caught:
        build()
    assert from_exception(caught.value).code == "RESOURCE_EXHAUSTED_ERROR"


def test_a_missing_file_is_not_exhaustion_and_a_cycle_of_causes_ends():
    first, second = ValueError("a"), OSError(errno.ENOENT, "gone")
    first.__cause__, second.__cause__ = second, first
    assert from_exception(first).code == "TRANSIENT_ERROR"


def raising(name, error=ValueError, base=Exception):
    def raises(self):
        raise error("its own")

    return type(f"Bad{name}", (base,), {name: property(raises)})


class EverythingError(Exception):
    def __getattribute__(self, name):
        raise SystemExit(name)


class NamedBadly(type):
    @property
    def __name__(cls):
        raise ValueError("no name")


class NamelessError(Exception, metaclass=NamedBadly):
    pass


@pytest.mark.parametrize(
    "kind",
    [
        *(raising(name) for name in ("__cause__", "__context__", "__suppress_context__", "__class__", "__traceback__")),
        raising("__cause__", SystemExit),
        raising("errno", base=OSError),
        raising("code", base=PermanentError),
        raising("exceptions", KeyboardInterrupt),
        EverythingError,
        NamelessError,
    ],
    ids=type.__dict__["__name__"].__get__,
)
def test_an_error_that_raises_when_it_is_looked_at_is_a_failure_that_names_it(kind):
    outcome = from_exception(kind("x"))
    assert outcome.code == "TRANSIENT_ERROR"
    assert outcome.message.startswith(type.__dict__["__name__"].__get__(kind))


@pytest.mark.parametrize("number", ["28", [28], None, object(), 10**30])
def test_an_errno_that_the_system_does_not_know_is_not_exhaustion(number):
    error = OSError("x")
    error.errno = number
    assert from_exception(error).code == "TRANSIENT_ERROR"
