"""``--param name=value``: a text is read as the type that the skill's schema allows."""

import decimal
import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from avtomatika_worker import Worker
from avtomatika_worker.cli.fields import split_fields, typed_fields
from avtomatika_worker.cli.worker_app import UsageProblem


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int


def schema_of(annotation):
    worker = Worker(worker_type="test")

    def skill(value): ...

    skill.__annotations__["value"] = annotation
    worker.skill("skill")(skill)
    return worker.skills.contracts()[0].input_schema


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (str, "3", "3"),
        (str, "true", "true"),
        (str, '"quoted"', '"quoted"'),
        (str, "", ""),
        (str, "a=b", "a=b"),
        (str | None, "3", "3"),
        (str | None, "null", None),
        (Annotated[str, Meta(pattern="^[0-9]+$")], "007", "007"),
        (Literal["1", "2"], "1", "1"),
        (Literal[1, 2], "1", 1),
        (Level, "1", 1),
        (int, "3", 3),
        (float, "3", 3),
        (float, "2.5", 2.5),
        (bool, "true", True),
        (int | str, "3", 3),
        (int | str, "three", "three"),
        (list[int], "[1, 2]", [1, 2]),
        (list[int] | str, "[1", "[1"),
        (Point, '{"x": 1}', {"x": 1}),
        (dict[str, Any], '{"x": 1}', {"x": 1}),
        (Any, "3", 3),
        (Any, "three", "three"),
        (Any, '"3"', "3"),
    ],
)
def test_a_text_is_read_as_the_type_of_its_field(annotation, text, value):
    read = typed_fields(split_fields([f"value={text}"]), schema_of(annotation))
    assert read == {"value": value}
    assert type(read["value"]) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text", "allowed"),
    [
        (int, "three", "an integer"),
        (int, "2.5", "an integer"),
        (int, "true", "an integer"),
        (float, "much", "a number"),
        (bool, "yes", "true or false"),
        (bool, "1", "true or false"),
        (int | None, "none", "an integer or null"),
        (list[int], "1,2", "an array such as '[1, 2]'"),
        (Point, "1", "an object such as"),
        (Literal[1, 2], "one", "an integer"),
    ],
)
def test_a_text_that_is_not_of_its_type_is_an_error_that_says_what_it_should_be(annotation, text, allowed):
    with pytest.raises(UsageProblem) as caught:
        typed_fields(split_fields([f"value={text}"]), schema_of(annotation))
    assert str(caught.value).startswith(f"--param value={text!r}: it should be {allowed}")


@given(st.text())
def test_any_text_reaches_a_text_as_it_is(text):
    assert typed_fields(split_fields([f"value={text}"]), schema_of(str)) == {"value": text}


def test_what_the_skill_does_not_list_is_json_if_it_can_be():
    for schema in (None, {}, schema_of(int)):
        assert typed_fields(split_fields(["other=3", "another=three"]), schema) == {"other": 3, "another": "three"}


@pytest.mark.parametrize("text", ["1.10", "0.1234567890123456789", "1e5"])
def test_a_decimal_keeps_all_of_its_digits(text):
    assert typed_fields(split_fields([f"value={text}"]), schema_of(decimal.Decimal)) == {"value": text}
    assert typed_fields(split_fields([f"value={text}"]), schema_of(float)) == {"value": float(text)}
    assert typed_fields(split_fields([f"value={text}"]), None) == {"value": float(text)}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.10", 1.1), ("1e5", 1e5), ("0.1234567890123456789", "0.1234567890123456789"), ("1e400", "1e400")],
)
def test_a_number_or_text_is_a_number_unless_that_loses_digits(text, value):
    """As pydantic describes a Decimal."""
    assert typed_fields(split_fields([f"value={text}"]), schema_of(float | str)) == {"value": value}
