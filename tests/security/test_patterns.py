"""A pattern of a skill's author and a text of a client's take linear time together, not exponential."""

import dataclasses
import time
from typing import Annotated, NotRequired, TypedDict

import msgspec
import pydantic
import pytest

from avtomatika_worker.skills.schema import UnsupportedTypeError, explicit_input, infer_fields, infer_input
from avtomatika_worker.skills.type_hints import MISSING
from avtomatika_worker.skills.validation import InvalidValue, Schema

SLOW = "^(a+)+$"
BAD = "a" * 60 + "!"
Text = Annotated[str, msgspec.Meta(pattern=SLOW, min_length=1)]


class Typed(TypedDict):
    text: NotRequired[Text]


@dataclasses.dataclass
class Data:
    text: Text


class Struct(msgspec.Struct):
    text: Text
    more: list[Text] = []


class Model(pydantic.BaseModel):
    text: str = pydantic.Field(pattern=SLOW)


def field(tp):
    return infer_fields("skill", {"text": (tp, MISSING)})


BOTH = [
    pytest.param(field(Text), {"text": BAD}, {"text": "aa"}, id="an argument"),
    pytest.param(field(Text | None), {"text": BAD}, {"text": None}, id="an optional one"),
    pytest.param(field(list[Text]), {"text": ["a", BAD]}, {"text": ["a", "aaa"]}, id="a list"),
    pytest.param(field(dict[str, list[Text]]), {"text": {"x": [BAD]}}, {"text": {"x": ["a"]}}, id="dicts"),
    pytest.param(field(dict[Text, int]), {"text": {BAD: 1}}, {"text": {"a": 1}}, id="keys"),
    pytest.param(field(Typed), {"text": {"text": BAD}}, {"text": {"text": "a"}}, id="a TypedDict in an argument"),
    pytest.param(infer_input(Typed), {"text": BAD}, {"text": "a"}, id="a TypedDict"),
    pytest.param(infer_input(Data), {"text": BAD}, {"text": "a"}, id="a dataclass"),
    pytest.param(infer_input(Struct), {"text": "a", "more": [BAD]}, {"text": "a"}, id="a Struct"),
    pytest.param(infer_input(Model), {"text": BAD}, {"text": "a"}, id="a pydantic model"),
    pytest.param(
        field(Annotated[str, pydantic.Field(pattern=SLOW)]), {"text": BAD}, {"text": "a"}, id="a pydantic field"
    ),
]


@pytest.mark.parametrize(("contract", "bad", "good"), BOTH)
def test_a_text_that_python_would_try_for_years_is_refused_at_once(contract, bad, good):
    began = time.perf_counter()
    with pytest.raises(InvalidValue, match=r"match|not valid"):
        contract.convert(bad)
    assert time.perf_counter() - began < 10
    contract.convert(good)


LATE = Annotated[str, msgspec.Meta(pattern="^(?:(?:a+)+b|a+!)$")]


@dataclasses.dataclass
class LateData:
    text: LATE


class LateStruct(msgspec.Struct):
    text: LATE


@pytest.mark.parametrize("contract", [field(LATE), infer_input(LateData), infer_input(LateStruct)])
def test_a_text_that_fits_only_after_a_long_search_is_taken_at_once(contract):
    """The validator says yes; Python, asked again, would try the first alternative for years."""
    began = time.perf_counter()
    assert contract.convert({"text": BAD}) in ({"text": BAD}, LateData(BAD), LateStruct(BAD))
    assert time.perf_counter() - began < 10


def test_the_other_constraints_stay_where_a_pattern_stands():
    contract = field(Text)
    assert contract.schema["properties"]["text"] == {"type": "string", "pattern": SLOW, "minLength": 1}
    with pytest.raises(InvalidValue):
        contract.convert({"text": ""})


@pytest.mark.parametrize("pattern", [r"^(?=a)(a+)+$", r"^(a+)+\1$", r"^(?!b)(a|aa)+$", r"^(a+)+(?<=a)$"])
def test_patterns_with_look_around_and_back_references_give_up_and_refuse(pattern):
    began = time.perf_counter()
    assert Schema({"type": "string", "pattern": pattern}).problems("a" * 5_000 + "!")
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize("pattern", [r"^(a)?(?(1)b|c)$", "(", r"\p{Nonsense}"])
def test_a_pattern_that_the_validator_does_not_know_is_an_error_at_registration(pattern):
    schema = {"type": "object", "patternProperties": {pattern: {"type": "string"}}}
    with pytest.raises(UnsupportedTypeError, match="not a JSON Schema"):
        explicit_input(schema)
