"""From type hints to schemas and converters: every kind of type, no constraint lost."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar

import annotated_types as at
import jsonschema_rs
import msgspec
import pydantic
import pytest
import typing_extensions

from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.skills import schema as contracts
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.schema import explicit_event, explicit_input, infer_fields, infer_input
from avtomatika_worker.skills.type_hints import MISSING, UnsupportedTypeError
from avtomatika_worker.skills.validation import InvalidValue

T = TypeVar("T")


def infer_output(annotation: Any) -> dict[str, Any] | None:
    """The schema of what a function with this return type sends."""
    contract = contracts.infer_output(annotation)
    return contract.schema if contract is not None else None


def explicit_output(given: Any) -> dict[str, Any] | None:
    contract = contracts.explicit_output(given)
    return contract.schema if contract is not None else None


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Model(pydantic.BaseModel):
    size: int = pydantic.Field(gt=0)
    color: Color = Color.RED


class Strict(pydantic.BaseModel, extra="forbid"):
    size: int


class Aliased(pydantic.BaseModel):
    url: str = pydantic.Field(alias="imageUrl")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.url)


_ABOUT = "A picture.\n\nWith its:\n    size"


class DescribedModel(pydantic.BaseModel):
    """A picture.

    With its:
        size
    """

    size: int = 1


@dataclasses.dataclass
class DescribedDataclass:
    """A picture.

    With its:
        size
    """

    size: int = 1


class DescribedStruct(msgspec.Struct):
    """A picture.

    With its:
        size
    """

    size: int = 1


class Struct(msgspec.Struct, rename="camel"):
    big_size: Annotated[int, msgspec.Meta(ge=1)]
    tags: list[str] = []


@dataclasses.dataclass
class Data:
    size: int
    path: Path | None = None


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)


class ModelTree(pydantic.BaseModel):
    value: int
    children: list[ModelTree] = []


class Typed(TypedDict):
    size: int
    note: NotRequired[str]


class TypedConstrained(TypedDict):
    size: Annotated[int, at.Gt(3)]
    note: NotRequired[str]


class TypedWithModel(TypedDict, total=False):
    models: list[Model]
    inner: TypedConstrained | None


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclasses.dataclass
class Mixed:
    model: Model
    more: dict[str, list[Model]]


@dataclasses.dataclass
class Places:
    at: Point
    route: list[Point]


@dataclasses.dataclass
class Generally(Generic[T]):
    item: T
    limit: Annotated[int, at.Le(5)] = 5


class Even:
    """A constraint of the user's own, known to pydantic only."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        def check(value: int) -> int:
            if value % 2:
                raise ValueError("odd")
            return value

        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(check, handler(source))


class OwnConstraint(at.BaseMetadata):
    pass


Positive = NewType("Positive", Annotated[int, at.Gt(0)])  # type: ignore[valid-newtype]


@dataclasses.dataclass
class WithNewType:
    size: Positive


@dataclasses.dataclass
class WithEven:
    size: Annotated[int, Even()]


OBJECTS: list[tuple[Any, dict[str, Any], Any, dict[str, Any], str]] = [
    (Model, {"size": 1, "color": "blue"}, Model(size=1, color=Color.BLUE), {"size": 0}, "$.size"),
    (Strict, {"size": 1}, Strict(size=1), {"size": 1, "more": 2}, "$.more"),
    (Struct, {"bigSize": 1}, Struct(1), {"bigSize": 0}, "$.bigSize"),
    (Data, {"size": 1, "path": "a/b"}, Data(1, Path("a/b")), {"size": "1"}, "$.size"),
    (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(1, [Tree(2)]),
     {"value": 1, "children": [{}]}, "$.children[0].value"),
    (ModelTree, {"value": 1, "children": [{"value": 2}]}, ModelTree(value=1, children=[ModelTree(value=2)]),
     {"value": 1, "children": [{"value": "x"}]}, "$.children[0].value"),
    (Typed, {"size": 1, "note": "n"}, {"size": 1, "note": "n"}, {"size": 1, "note": 2}, "$.note"),
    (TypedConstrained, {"size": 4}, {"size": 4}, {"size": 3}, "$.size"),
    (TypedWithModel, {"models": [{"size": 1}], "inner": {"size": 4}}, {"models": [Model(size=1)], "inner": {"size": 4}},
     {"inner": {"size": 2}}, "$.inner.size"),
    (Point, {"x": 1}, Point(1), {"x": "a"}, "$.x"),
    (Places, {"at": [1, 2], "route": []}, Places(Point(1, 2), []), {"at": [1], "route": [["a"]]}, "$.route[0][0]"),
    (Mixed, {"model": {"size": 1}, "more": {"a": [{"size": 2}]}}, Mixed(Model(size=1), {"a": [Model(size=2)]}),
     {"model": {"size": 1}, "more": {"a": [{"size": 0}]}}, "$.more.a[0].size"),
    (Generally[int], {"item": 1}, Generally(1), {"item": 1, "limit": 6}, "$.limit"),
    (Generally[Model], {"item": {"size": 1}}, Generally(Model(size=1)), {"item": {"size": 0}}, "$.item.size"),
    (WithNewType, {"size": 1}, WithNewType(Positive(1)), {"size": 0}, "$.size"),
    (WithEven, {"size": 2}, WithEven(2), {"size": 3}, "$.size"),
    (Model | Strict, {"size": 1}, Strict(size=1), {"size": "x"}, "$.size"),
    (Data | None, {"size": 1}, Data(1), {"size": []}, "$"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "good", "converted", "bad", "path"), OBJECTS, ids=lambda each: str(each)[:40])
def test_input_is_converted_checked_and_described(
    annotation: Any, good: dict[str, Any], converted: Any, bad: dict[str, Any], path: str
) -> None:
    contract = infer_input(annotation)
    assert contract is not None
    if annotation != Model | Strict:  # which of two that fit is chosen is pydantic's business
        assert contract.convert(good) == converted
    assert jsonschema_rs.validator_for(contract.schema).is_valid(good)
    with pytest.raises(InvalidValue) as caught:
        contract.convert(bad)
    assert caught.value.problems[0].path == path


@pytest.mark.parametrize("annotation", [each[0] for each in OBJECTS if each[0] is not WithEven], ids=str)
def test_what_the_converter_refuses_the_schema_refuses(annotation: Any) -> None:
    contract = infer_input(annotation)
    bad = next(each[3] for each in OBJECTS if each[0] == annotation)
    assert contract is not None
    assert not jsonschema_rs.validator_for(contract.schema).is_valid(bad)


FIELDS: list[tuple[Any, Any, Any, Any]] = [
    (int, 3, 3, "3"),
    (float, 3, 3.0, "x"),
    (bool, True, True, 1),
    (str, "x", "x", 1),
    (Color, "red", Color.RED, "green"),
    (Literal["a", "b"], "a", "a", "c"),
    (dt.datetime, "2020-01-02T03:04:05Z", dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=dt.UTC), "yesterday"),
    (uuid.UUID, str(uuid.UUID(int=1)), uuid.UUID(int=1), "x"),
    (decimal.Decimal, "1.5", decimal.Decimal("1.5"), "x"),
    (bytes, "YWI=", b"ab", "*"),
    (Path, "a/b", Path("a/b"), 1),
    (set[int], [1, 2], {1, 2}, ["a"]),
    (tuple[int, str], [1, "a"], (1, "a"), [1]),
    (dict[str, int], {"a": 1}, {"a": 1}, {"a": "b"}),
    (Optional[int], None, None, "x"),  # noqa: UP045
    (int | str, "x", "x", None),
    (Annotated[str, msgspec.Meta(max_length=2)], "ab", "ab", "abc"),
    (Annotated[list[int], at.Len(1, 2)], [1], [1], []),
    (pydantic.PositiveInt, 1, 1, 0),
    (Model, {"size": 1}, Model(size=1), {"size": 0}),
    (Data, {"size": 1}, Data(1), {}),
    (TypedConstrained, {"size": 4}, {"size": 4}, {"size": 1}),
    (list[TypedConstrained], [{"size": 4}], [{"size": 4}], [{"size": 1}]),
    (Annotated[dict[str, TypedConstrained], at.Len(1, 1)], {"a": {"size": 4}}, {"a": {"size": 4}}, {"a": {"size": 1}}),
    (Any, object, object, None),
]


@pytest.mark.parametrize(("annotation", "good", "converted", "bad"), FIELDS, ids=lambda each: str(each)[:40])
def test_a_field_of_any_type_is_converted_and_checked(annotation: Any, good: Any, converted: Any, bad: Any) -> None:
    contract = infer_fields("skill", {"field": (annotation, MISSING), "other": (int, 7)})
    assert contract.convert({"field": good, "unknown": 1}) == {"field": converted}
    required = [] if annotation in (Any, Optional[int]) else ["field"]  # noqa: UP045 - null is an absent field
    assert contract.schema["required"] == required
    assert contract.schema["properties"]["other"]["default"] == 7
    if annotation is not Any:
        with pytest.raises(InvalidValue):
            contract.convert({"field": bad})


@dataclasses.dataclass
class Open:
    ratio: float = math.inf
    default: int = 1


class OpenModel(pydantic.BaseModel):
    inner: Open = Open()
    ratio: float = math.nan
    count: int = 2**70


@pytest.mark.parametrize(
    "contract",
    [
        infer_input(Open),
        infer_input(OpenModel),
        infer_fields("skill", {"ratio": (float, math.inf), "size": (int, 1)}),
        infer_fields("skill", {"ratio": (Annotated[float, at.Gt(0)], math.nan), "inner": (Open, Open())}),
    ],
    ids=["dataclass", "model", "fields", "fields with pydantic"],
)
def test_a_default_that_cannot_be_sent_is_not_announced(contract: Any) -> None:
    canonical_bytes(contract.schema, NEUTRAL)
    assert "default" not in contract.schema["properties"]["ratio"]


def test_a_field_called_default_is_a_field() -> None:
    contract = infer_input(Open)
    assert contract is not None
    assert contract.schema["properties"]["default"] == {"type": "integer", "default": 1}


def test_every_problem_is_reported() -> None:
    contract = infer_fields("skill", {"a": (int, MISSING), "b": (str, ""), "c": (Color, MISSING)})
    with pytest.raises(InvalidValue) as caught:
        contract.convert({"b": 1, "c": "green"})
    assert {each.path for each in caught.value.problems} == {"$.a", "$.b", "$.c"}


def test_problems_say_what_was_expected_and_what_came() -> None:
    contract = infer_fields("skill", {"width": (int, MISSING)})
    with pytest.raises(InvalidValue) as caught:
        contract.convert({"width": "x"})
    assert caught.value.problems[0].text("params") == "params.width: expected integer, got string"


@pytest.mark.parametrize("annotation", [int, Model], ids=["msgspec", "pydantic"])
def test_a_huge_value_is_not_repeated(annotation: Any) -> None:
    contract = infer_fields(
        "skill", {"field": (Annotated[str, msgspec.Meta(pattern="^b$")] if annotation is int else annotation, MISSING)}
    )
    with pytest.raises(InvalidValue) as caught:
        contract.convert({"field": "a" * 100_000, "a" * 100_000: 1})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("annotation", [None, MISSING, Any, object, dict, dict[str, Any], type(None)])
def test_some_types_have_no_schema(annotation: Any) -> None:
    assert infer_input(annotation) is None
    assert infer_output(annotation) is None


def test_unhashable_metadata_is_accepted() -> None:
    assert infer_output(Annotated[int, msgspec.Meta(examples=[{}])]) is not None


@pytest.mark.parametrize("annotation", [int, list[int], Color])
def test_params_must_be_an_object(annotation: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match="always an object"):
        infer_input(annotation)


def test_two_engines_in_one_type_are_refused_rather_than_a_constraint_lost() -> None:
    with pytest.raises(UnsupportedTypeError, match="mixes"):
        infer_fields("skill", {"a": (Annotated[int, msgspec.Meta(ge=1)], MISSING), "b": (Model, MISSING)})


def test_a_custom_constraint_needs_pydantic() -> None:
    with pytest.raises(InvalidValue, match="odd"):
        infer_fields("skill", {"a": (Annotated[int, Even()], MISSING)}).convert({"a": 3})


def test_a_pattern_that_is_invalid_in_json_schema_is_refused() -> None:
    with pytest.raises(UnsupportedTypeError, match="regex"):
        infer_fields("skill", {"a": (Annotated[str, msgspec.Meta(pattern=r"(?P<x>a)\Z")], MISSING)})


def test_without_pydantic_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)  # as when it is not installed
    with pytest.raises(UnsupportedTypeError, match=r"install the extra \[pydantic\]: pip install \"pydantic"):
        infer_fields("skill", {"a": (Annotated[int, at.Gt(1)], MISSING)})


# ------------------------------------------------------------------------------------------------------ output


class Envelope(TypedDict):
    status: str
    data: Typed


class PointEnvelope(TypedDict):
    data: Point


@dataclasses.dataclass
class Order:
    status: str
    data: int = 0


class ForeignEnvelope(typing_extensions.TypedDict):
    data: Typed


class StatusOnly(TypedDict):
    status: str


class AnyEnvelope(TypedDict):
    status: str
    data: dict[str, Any]


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, {"result": 1}, {"result": "x"}),
        (list[Point], {"result": [[1, 2]]}, {"result": [{"x": 1}]}),
        (Literal["a"], {"result": "a"}, {"result": "b"}),
        (Model, {"size": 1, "color": "red"}, {"size": 0}),
        (Aliased, to_plain(Aliased(imageUrl="u")), {"url": "u"}),
        (Point, to_plain(Point(1)), {"result": [1, 0]}),
        (Envelope, {"size": 1}, {"status": "ok", "data": {"size": 1}}),
        (int | str, {"result": "x"}, {"result": None}),
        (int | Typed, {"size": 1}, {"result": "x"}),
        (Data | None, {}, {"size": "x"}),
        (Model | Tree | None, {"value": 1, "children": [{"value": 2}]}, {"value": "x"}),
        (Annotated[int, at.Gt(3)], {"result": 4}, {"result": 3}),
        (Mixed | Data, {"size": 1}, {"size": "x"}),
        (PointEnvelope, {"result": to_plain({"data": Point(1)})["data"]}, {"x": 1, "y": 0}),
        (ForeignEnvelope, {"size": 1}, {"status": "ok", "data": {"size": 1}}),
        (Order, {"status": "open", "data": 1}, {"data": 1}),
    ],
    ids=lambda each: str(each)[:40],
)
def test_the_data_schema_follows_the_return_type(annotation: Any, good: dict[str, Any], bad: dict[str, Any]) -> None:
    schema = infer_output(annotation)
    assert schema is not None
    assert schema["type"] == "object"
    validator = jsonschema_rs.validator_for(schema)
    validator.validate(good)
    assert not validator.is_valid(bad)


@pytest.mark.parametrize("annotation", [StatusOnly, AnyEnvelope, int | dict[str, Any], None | dict], ids=str)
def test_nothing_is_inferred_where_nothing_is_known(annotation: Any) -> None:
    assert infer_output(annotation) is None


def test_two_classes_of_one_name_in_a_union_keep_their_constraints() -> None:
    def holder(limit: int) -> Any:
        item = msgspec.defstruct("Item", [("n", Annotated[int, msgspec.Meta(le=limit)])])
        return msgspec.defstruct(f"Holder{limit}", [("items", list[item]), (f"only{limit}", int)])

    schema = infer_output(holder(1) | holder(2))
    assert schema is not None
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid({"items": [{"n": 2}], "only2": 0})
    assert not validator.is_valid({"items": [{"n": 2}], "only1": 0})


# ------------------------------------------------------------------------------------------------------ given schemas


def test_a_given_json_schema_is_taken_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    contract = explicit_input(schema)
    assert contract is not None
    assert contract.schema == schema
    assert explicit_output(schema) == explicit_event(schema) == schema


def test_given_types_become_schemas() -> None:
    contract = explicit_input(Model)
    assert contract is not None
    assert contract.schema["properties"]["size"]["exclusiveMinimum"] == 0
    output, event = explicit_output(int), explicit_event(Point)
    assert output is not None
    assert output["properties"]["result"] == {"type": "integer"}
    assert event["properties"].keys() == {"x", "y"}


def test_an_event_with_the_fields_of_an_envelope_is_not_an_envelope() -> None:
    assert explicit_event(StatusOnly)["properties"].keys() == {"status"}


def test_an_event_must_be_an_object() -> None:
    with pytest.raises(UnsupportedTypeError, match="object"):
        explicit_event(int)


@pytest.mark.parametrize("read", [explicit_input, explicit_output, explicit_event])
@pytest.mark.parametrize("schema", [{"type": "nope"}, {"properties": 3}, {"$ref": "#/$defs/Nowhere"}], ids=str)
def test_an_invalid_json_schema_is_refused(read: Any, schema: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedTypeError, match="not a JSON Schema"):
        read(schema)


def test_schemas_are_never_fetched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "schema.json"
    elsewhere.write_text("{}")
    with pytest.raises(UnsupportedTypeError, match="outside the schema"):
        explicit_input({"$ref": elsewhere.as_uri()})


class Renamed(pydantic.BaseModel, extra="forbid"):
    url: str = pydantic.Field(validation_alias="came", serialization_alias="goes")


@pytest.mark.parametrize("schema", [infer_output(Renamed), explicit_output(Renamed), explicit_event(Renamed)])
def test_what_is_sent_is_described_by_the_names_it_is_sent_with(schema: dict[str, Any]) -> None:
    sent = to_plain(Renamed(came="u"))
    assert sent == {"goes": "u"}
    jsonschema_rs.validator_for(schema).validate(sent)


def test_what_is_received_is_described_by_the_names_it_is_received_with() -> None:
    contract = infer_input(Renamed)
    assert contract is not None
    assert contract.schema["properties"].keys() == {"came"}
    assert contract.convert({"came": "u"}).url == "u"


@pytest.mark.parametrize("tp", [DescribedModel, DescribedDataclass, DescribedStruct])
def test_a_docstring_becomes_a_description_without_its_indentation(tp):
    contract = infer_input(tp)
    assert contract is not None
    assert contract.schema["description"] == _ABOUT


@pytest.mark.parametrize("tp", [DescribedModel, DescribedDataclass, DescribedStruct])
def test_docstrings_of_nested_types_become_descriptions_too(tp):
    schema = infer_output(list[tp])
    assert schema is not None
    assert schema["$defs"][tp.__name__]["description"] == _ABOUT
