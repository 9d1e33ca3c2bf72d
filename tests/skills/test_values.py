"""Params become objects as their constructors make them, and what is sent of them fits what is announced."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import ipaddress
import json
import sys
import uuid
from collections.abc import Iterable
from dataclasses import KW_ONLY, InitVar, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import attrs
import jsonschema_rs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, HttpUrl, RootModel, SecretStr, computed_field

from avtomatika_worker.errors import TransientError, UnsendableValueError
from avtomatika_worker.skills import schema
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.type_hints import MISSING, UnsupportedTypeError, admits_none
from avtomatika_worker.skills.validation import InvalidValue, without_nulls

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Base:
    ident: int
    tags: list[str] = field(default_factory=list)


@dataclass
class Full(Base):
    _: KW_ONLY
    color: Color = Color.RED
    wait: dt.timedelta = dt.timedelta(seconds=5)
    price: decimal.Decimal = decimal.Decimal("1.50")
    raw: bytes = b"\xff"
    at: Path = Path("x/y")
    seed: InitVar[int] = 3
    total: int = field(init=False)
    unit: str = field(init=False, default="px")

    def __post_init__(self, seed: int) -> None:
        self.total = self.ident + seed


@dataclass(slots=True, frozen=True)
class Slots:
    a: int
    b: str | None
    c: int = 3


@dataclass
class Tree:
    value: int
    above: Tree | None
    children: list[Tree] = field(default_factory=list)


@dataclass
class Holder:
    one: Slots
    many: list[Slots]
    named: dict[str, Slots]
    pair: tuple[Slots, int]
    either: Slots | int
    maybe: Slots | None
    some: frozenset[Slots] = frozenset()
    more: Slots = Slots(1, "x")


class Tagged(msgspec.Struct, tag="one", rename="camel", forbid_unknown_fields=True):
    my_slots: Slots
    note: str | None
    unset: int | msgspec.UnsetType = msgspec.UNSET


class Other(msgspec.Struct, tag="two"):
    x: int = 1


@dataclass
class Union:
    it: Tagged | Other


class Row(NamedTuple):
    x: int
    slots: Slots = Slots(1, None)


@dataclass
class Rows:
    rows: list[Row]


class Typed(TypedDict):
    a: int
    b: str | None
    c: NotRequired[Slots]


@attrs.define
class Attrs:
    a: int
    _private: int = 3
    items: list[int] = attrs.field(factory=list)
    made: int = attrs.field(init=False, default=4)
    next: int = attrs.field(default=attrs.Factory(lambda self: self.a + 1, takes_self=True))


@dataclass
class Of(Generic[T]):
    item: T
    items: list[T]


@dataclass
class OfInt(Of[int], Generic[T]):
    own: T | None = None


@dataclass
class OwnConstructor:
    a: int
    double: int = 0

    def __init__(self, a: int) -> None:
        self.a, self.double = a, 2 * a


def made(annotation: Any, params: dict[str, Any]) -> Any:
    """What a skill gets for these params, which fit what is announced."""
    contract = schema.infer_input(annotation)
    assert contract is not None
    jsonschema_rs.validator_for(contract.schema).validate(params)
    return contract.convert(params)


def sent(annotation: Any, value: object) -> Any:
    """What goes out for a value of this return type, and fits what is announced."""
    contract = schema.infer_output(annotation)
    assert contract is not None
    data = without_nulls(contract.write(value))
    jsonschema_rs.validator_for(contract.schema).validate(data)
    return data


MADE: list[tuple[Any, dict[str, Any], Any]] = [
    (Base, {"ident": 1}, Base(1)),
    (Full, {"ident": 1}, Full(1)),
    (Full, {"ident": 1, "seed": 9, "price": 2.5, "total": 5}, Full(1, seed=9, price=decimal.Decimal("2.5"))),
    (Slots, {"a": 1}, Slots(1, None)),
    (Tree, {"value": 1, "above": {"value": 2}, "children": [{"value": 3}]}, Tree(1, Tree(2, None), [Tree(3, None)])),
    (
        Holder,
        {"one": {"a": 1}, "many": [{"a": 2}], "named": {"k": {"a": 3}}, "pair": [{"a": 4}, 5], "either": {"a": 6}},
        Holder(Slots(1, None), [Slots(2, None)], {"k": Slots(3, None)}, (Slots(4, None), 5), Slots(6, None), None),
    ),
    (Union, {"it": {"type": "one", "mySlots": {"a": 1}}}, Union(Tagged(Slots(1, None), None))),
    (Union, {"it": {"type": "two"}}, Union(Other())),
    (Row, {"x": 1}, Row(1)),
    (Rows, {"rows": [[1], [2, {"a": 3}]]}, Rows([Row(1), Row(2, Slots(3, None))])),
    (Typed, {"a": 1}, {"a": 1, "b": None}),
    (Typed, {"a": 1, "c": {"a": 2}}, {"a": 1, "b": None, "c": Slots(2, None)}),
    (Attrs, {"a": 1}, Attrs(1)),
    (Attrs, {"a": 1, "_private": 5}, Attrs(1, private=5)),
    (Of[Slots], {"item": {"a": 1}, "items": [{"a": 2}]}, Of(Slots(1, None), [Slots(2, None)])),
    (OfInt[str], {"item": 1, "items": [2], "own": "x"}, OfInt(1, [2], "x")),
    (OwnConstructor, {"a": 2}, OwnConstructor(2)),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "params", "expected"), MADE, ids=lambda each: str(each)[:50])
def test_params_are_what_their_constructor_makes(annotation: Any, params: dict[str, Any], expected: Any) -> None:
    value = made(annotation, params)
    assert value == expected
    assert getattr(value, "__dict__", None) == getattr(expected, "__dict__", None)


@pytest.mark.parametrize("annotation", [each[0] for each in MADE], ids=str)
def test_plain_types_need_no_pydantic(annotation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)  # as when it is not installed
    assert schema.infer_input(annotation) is not None
    assert schema.infer_output(annotation) is not None


@pytest.mark.parametrize(("annotation", "params", "expected"), MADE, ids=lambda each: str(each)[:50])
def test_all_fields_of_an_object_are_sent(annotation: Any, params: dict[str, Any], expected: Any) -> None:
    assert sent(annotation, made(annotation, params)) == without_nulls(to_plain(expected))


def test_a_field_that_the_constructor_leaves_to_the_class_is_sent() -> None:
    assert sent(Full, Full(1))["unit"] == "px"


def test_two_classes_of_one_name_stay_apart() -> None:
    def local(default: int) -> Any:
        @dataclass
        class Same:
            size: int = default

        return Same

    both = dataclasses.make_dataclass("Both", [("a", local(1)), ("b", local(2))])
    value = made(both, {"a": {}, "b": {}})
    assert (value.a.size, value.b.size) == (1, 2)


@pytest.mark.parametrize(
    ("key", "text", "read"),
    [
        (Path, "a/b", Path("a/b")),
        (ipaddress.IPv4Address, "10.0.0.1", ipaddress.IPv4Address("10.0.0.1")),
        (bool, "true", True),
        (int, "1", 1),
        (int | None, "1", 1),
        (Annotated[int, msgspec.Meta(ge=1)], "1", 1),
        (Color, "red", Color.RED),
        (Literal["x"], "x", "x"),
        (dt.date, "2024-01-01", dt.date(2024, 1, 1)),
        (Any, "1", "1"),
    ],
    ids=str,
)
def test_keys_of_an_object_are_of_their_type(key: Any, text: str, read: Any) -> None:
    contract = schema.infer_fields("f", {"named": (dict[key, int], MISSING)})
    assert contract.convert({"named": {text: 1}}) == {"named": {read: 1}}


def test_keys_of_an_unsupported_type_are_an_error_at_registration() -> None:
    class Own:
        pass

    with pytest.raises(UnsupportedTypeError, match="keys of type Own are not supported"):
        schema.infer_fields("f", {"named": (dict[Own, int], MISSING)})


def test_a_problem_with_a_key_names_the_key() -> None:
    contract = schema.infer_fields("f", {"named": (dict[int, int], MISSING)})
    with pytest.raises(InvalidValue, match=r"\$\.named: in a key: "):
        contract.convert({"named": {"one": 1}})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement came with Python 3.12")
def test_a_type_statement_does_not_hide_a_class() -> None:
    namespace: dict[str, Any] = {"Slots": Slots, "dataclass": dataclass, "__name__": __name__}
    source = (
        "type Alias = Slots\ntype Many[T] = list[T]\n@dataclass\nclass Named:\n    one: Alias\n    many: Many[Slots]\n"
    )
    code = compile(source, "<test>", "exec", dont_inherit=True)  # its hints are no texts
    exec(code, namespace)  # noqa: S102 - a syntax that older versions do not have
    value = made(namespace["Named"], {"one": {"a": 1}, "many": [{"a": 2}]})
    assert (value.one, value.many) == (Slots(1, None), [Slots(2, None)])


@dataclass
class Refusing:
    a: int

    def __post_init__(self) -> None:
        if self.a == 1:
            raise ValueError("no ones")
        if self.a == 2:
            raise KeyError("two")
        if self.a == 3:
            raise TransientError("the table of threes is gone")


@dataclass
class Refused:
    all: list[Refusing]


@pytest.mark.parametrize(("a", "text"), [(1, "$.all[1]: no ones"), (2, "$.all[1]: KeyError: 'two'")])
def test_what_a_constructor_refuses_is_named_with_its_path(a: int, text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        made(Refused, {"all": [{"a": 0}, {"a": a}]})
    assert str(caught.value) == text


def test_a_constructor_may_decide_the_outcome() -> None:
    with pytest.raises(TransientError):
        made(Refused, {"all": [{"a": 3}]})


def test_a_constructor_argument_that_is_not_a_field_is_an_error_at_registration() -> None:
    @dataclass
    class Odd:
        a: int

        def __init__(self, a: int, hidden: int) -> None: ...

    with pytest.raises(UnsupportedTypeError, match="hidden"):
        schema.infer_input(Odd)


# ------------------------------------------------------------------------------------------------------ null


class Nullable(BaseModel):
    a: int
    b: str | None
    c: str | None = Field(alias="C")


class NullableHolder(BaseModel):
    one: Nullable
    many: list[Nullable]
    named: dict[str, Nullable | int]


class OnlyA(BaseModel, extra="forbid"):
    kind: Literal["a"]
    x: int | None


class OnlyB(BaseModel, extra="forbid"):
    kind: Literal["b"]
    y: int | None


class Either(BaseModel):
    smart: OnlyA | OnlyB
    tagged: Annotated[OnlyA | OnlyB, Field(discriminator="kind")]


def test_an_absent_field_that_may_be_null_is_null_at_any_depth() -> None:
    none = Nullable(a=1, b=None, C=None)
    given = {"one": {"a": 1}, "many": [{"a": 1}, {"a": 1, "b": "x"}], "named": {"k": {"a": 1}, "n": 2}}
    expected = NullableHolder(one=none, many=[none, Nullable(a=1, b="x", C=None)], named={"k": none, "n": 2})
    assert made(NullableHolder, given) == expected


def test_a_null_for_one_member_of_a_union_is_none_for_another() -> None:
    value = made(Either, {"smart": {"kind": "a"}, "tagged": {"kind": "b"}})
    assert value == Either(smart=OnlyA(kind="a", x=None), tagged=OnlyB(kind="b", y=None))


def test_only_what_may_be_null_may_be_absent() -> None:
    with pytest.raises(InvalidValue) as caught:
        made_anyway(NullableHolder, {"one": {}, "many": [{"b": "x"}]})
    assert {each.path for each in caught.value.problems} == {"$.one.a", "$.many[0].a", "$.named"}


def made_anyway(annotation: Any, params: dict[str, Any]) -> Any:
    contract = schema.infer_input(annotation)
    assert contract is not None
    return contract.convert(params)


@pytest.mark.parametrize("annotation", [Slots, Typed, Nullable, pydantic.TypeAdapter], ids=str)
def test_what_may_be_null_is_not_announced_as_required(annotation: Any) -> None:
    if annotation is pydantic.TypeAdapter:  # arguments of a function
        announced = [schema.infer_fields("f", {"a": (int, MISSING), "b": (str | None, MISSING)}).schema]
    else:
        given, returned = schema.infer_input(annotation), schema.infer_output(annotation)
        assert given is not None
        assert returned is not None
        announced = [given.schema, returned.schema]
    assert [each["required"] for each in announced] == [["a"]] * len(announced)


@pytest.mark.parametrize("tp", [str | None, Annotated[str | None, Field(max_length=3)], Any], ids=str)
def test_an_argument_that_may_be_none_gets_it(tp: Any) -> None:
    contract = schema.infer_fields("f", {"a": (int, MISSING), "b": (tp, MISSING)})
    assert contract.convert({"a": 1}) == {"a": 1, "b": None}


# ------------------------------------------------------------------------------------------------------ pydantic


class StrictModel(BaseModel):
    model_config = ConfigDict(strict=True)
    number: int
    day: dt.date
    color: Color
    pair: tuple[int, str]
    some: set[int]
    raw: bytes
    exact: decimal.Decimal
    many: frozenset[Color] = frozenset()


class Loose(BaseModel):
    strict: StrictModel
    only: dt.date = Field(strict=True)


STRICT = {"number": 1, "day": "2020-01-02", "color": "red", "pair": [1, "a"], "some": [1], "raw": "é", "exact": 1.5}


def test_strict_models_take_the_json_that_they_describe() -> None:
    value = made(Loose, {"strict": STRICT, "only": "2020-01-02"})
    assert value == Loose.model_validate_json(json.dumps({"strict": STRICT, "only": "2020-01-02"}))
    with pytest.raises(InvalidValue, match=r"strict\.number"):
        made_anyway(Loose, {"strict": {**STRICT, "number": "1"}, "only": "2020-01-02"})


class Root(RootModel[dict[str, Nullable]]):
    pass


class Item(BaseModel, Generic[T]):
    item: T
    none: T | None


@pydantic.dataclasses.dataclass
class Given:
    a: int = Field(validation_alias=AliasChoices("first", "a"), serialization_alias="A")
    made: int = field(init=False, default=3)


class Written(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    size: int = Field(alias="Size")
    hidden: int = Field(1, exclude=True)
    url: HttpUrl = HttpUrl("http://a.example/")

    @pydantic.field_serializer("size")
    def write(self, size: int) -> str:
        return f"{size} px"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int | None:
        return None if self.size == 0 else 2 * self.size


class Unsaid(BaseModel):
    """Its serializers do not say what they return."""

    size: int

    @pydantic.field_serializer("size")
    def write_size(self, size: int):  # type: ignore[no-untyped-def]
        return f"{size} px"


class UnsaidWhole(BaseModel):
    size: int

    @pydantic.model_serializer
    def write(self):  # type: ignore[no-untyped-def]
        return {"Size": self.size}


@dataclass
class Plain:
    url: HttpUrl
    seed: InitVar[int] = 1
    made: int = field(init=False, default=3)


PYDANTIC: list[tuple[Any, dict[str, Any], Any]] = [
    (Root, {"k": {"a": 1}}, {"k": {"a": 1}}),
    (Item[int], {"item": 1}, {"item": 1}),
    (Given, {"first": 1}, {"A": 1, "made": 3}),
    (Written, {"Size": 2}, {"Size": "2 px", "url": "http://a.example/", "double": 4}),
    (Written, {"Size": 0}, {"Size": "0 px", "url": "http://a.example/"}),
    (Unsaid, {"size": 1}, {"size": "1 px"}),
    (UnsaidWhole, {"size": 1}, {"Size": 1}),
    (Plain, {"url": "http://a.example/"}, {"url": "http://a.example/", "made": 3}),
]


@pytest.mark.parametrize(("annotation", "params", "data"), PYDANTIC, ids=lambda each: str(each)[:40])
def test_what_pydantic_describes_pydantic_reads_and_writes(annotation: Any, params: Any, data: Any) -> None:
    value = made(annotation, params)
    assert sent(annotation, value) == data
    assert without_nulls(to_plain({"in": [value]})) == {"in": [data]}


def test_values_of_pydantic_are_written_as_it_does_wherever_they_are() -> None:
    value = {"url": HttpUrl("http://a.example/"), "secret": SecretStr("x"), "in": Of(Written(Size=1), [])}
    assert to_plain(value) == {
        "url": "http://a.example/",
        "secret": "**********",
        "in": {"item": {"Size": "1 px", "url": "http://a.example/", "double": 2}, "items": []},
    }


def test_a_result_is_written_by_its_type_even_if_the_schema_is_unknown() -> None:
    price = Annotated[float, pydantic.PlainSerializer(lambda value: f"{value:.2f}")]
    contract = schema.infer_output(price)
    assert contract is not None
    assert contract.write(1.5) == "1.50"
    assert contract.schema == {"type": "object"}


@pytest.mark.parametrize("annotation", [Plain, Given], ids=str)
def test_a_field_that_a_dataclass_does_not_accept_is_not_a_param(annotation: Any) -> None:
    contract = schema.infer_input(annotation)
    assert contract is not None
    assert "made" not in contract.schema["properties"]


class Raising(BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def check(cls, number: int) -> int:
        if number == 1:
            raise ZeroDivisionError
        return number

    @computed_field  # type: ignore[prop-decorator]
    @property
    def inverse(self) -> float:
        return 1 / self.number


def test_a_validator_that_raises_refuses_the_params() -> None:
    with pytest.raises(InvalidValue, match="ZeroDivisionError"):
        made_anyway(Raising, {"number": 1})


@pytest.mark.parametrize("annotation", [list[Raising], None])
def test_a_property_that_raises_is_named_with_its_path(annotation: Any) -> None:
    contract = schema.infer_output(annotation)
    write = contract.write if contract is not None else to_plain
    with pytest.raises(UnsendableValueError) as caught:
        write([Raising(number=2), Raising(number=0)])
    assert caught.value.path == "$[1].inverse"


def test_a_property_of_a_mapping_that_raises_is_named_with_its_path() -> None:
    class Lazy(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("closed")

    with pytest.raises(UnsendableValueError, match="closed") as caught:
        to_plain({"a": [Lazy(x=1)]})
    assert caught.value.path == "$.a[0]"


@pytest.mark.parametrize("value", [Slots(1, None), Written(Size=1), {"Size": "1 px", "url": "x"}], ids=repr)
def test_a_union_of_both_kinds_is_written_by_its_member(value: Any) -> None:
    contract = schema.infer_output(Slots | Written | None)
    assert contract is not None
    assert contract.write(value) == to_plain(value)


# ------------------------------------------------------------------------------------------------------ defaults, order


@dataclass
class Defaults:
    z: dt.timedelta = dt.timedelta(days=1)
    y: decimal.Decimal = decimal.Decimal("1.50")
    x: dt.datetime = dt.datetime(2020, 1, 2, tzinfo=dt.UTC)
    w: Color = Color.RED
    v: frozenset[int] = frozenset({1})
    u: bytes = b"\xff"
    t: Path = Path("a/b")
    s: Slots = Slots(1, "b")
    r: int = None  # type: ignore[assignment]
    q: int = "many"  # type: ignore[assignment]
    p: list[int] = field(default_factory=list)
    o: list[int] = field(default_factory=lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    n: Any = dataclasses.field(default=object())


ANNOUNCED = {
    "z": "P1D", "y": "1.50", "x": "2020-01-02T00:00:00Z", "w": "red", "v": [1], "u": "/w==",
    "s": {"a": 1, "b": "b", "c": 3}, "p": [],
}  # fmt: skip


def test_defaults_are_announced_as_json_of_their_schema_or_not_at_all() -> None:
    contract = schema.infer_input(Defaults)
    assert contract is not None
    fields = contract.schema["properties"]
    assert {name: each["default"] for name, each in fields.items() if "default" in each} == ANNOUNCED
    jsonschema_rs.validator_for(contract.schema).validate(ANNOUNCED)
    # An orchestrator fills params in with them.
    assert contract.convert({**ANNOUNCED, "o": []}) == Defaults(o=[])


def test_defaults_of_arguments_are_announced_whichever_library_knows_their_types() -> None:
    def announced(tp: Any, default: Any) -> Any:
        return schema.infer_fields("f", {"a": (tp, default)}).schema["properties"]["a"].get("default", MISSING)

    assert announced(dt.timedelta, dt.timedelta(days=1)) == "P1D"
    assert announced(Slots, Slots(1, None)) == {"a": 1, "c": 3}
    assert announced(Row, Row(1, Slots(2, "b"))) == [1, {"a": 2, "b": "b", "c": 3}]
    assert announced(HttpUrl, HttpUrl("http://a.example/")) == "http://a.example/"
    assert announced(Given, Given(a=1)) is MISSING  # it is written by another name than it is read by
    assert announced(SecretStr, SecretStr("x")) is MISSING
    assert announced(int, "many") is MISSING


class Text(str):
    __slots__ = ()


class Beside(BaseModel):
    n: int = 1


class WithFile(BaseModel):
    inner: Path | None = Path("a")
    size: int = 1


@pytest.mark.parametrize(
    ("tp", "default"),
    [
        (Any, Color.RED), (Any, [Color.RED]), (Any, {"a": Color.RED}), (dict[str, Any], {"a": Color.RED}),
        (Any, decimal.Decimal("1.5")), (Any, dt.timedelta(1)), (Any, b"x"), (Any, (1, 2)), (list, (1, 2)), (Any, {1}),
        (Any, {1: "a"}), (dict, {1: 2}), (dict, {"a": None}), (dict[str, int | None], {"a": None}), (tuple, ((1,),)),
        (Any, Slots(1, "b")), (Any, Row(1, Slots(2, "b"))), (Base, Full(1, [])), (str, Text("a")),
        (Path, Path("a")), (Path | None, Path("a")), (list[Path], [Path("a")]), (WithFile, WithFile()),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("beside", [int, Beside], ids=["msgspec", "pydantic"])
def test_a_default_that_would_come_back_as_another_value_is_not_announced(tp: Any, default: Any, beside: Any) -> None:
    fields = {"beside": (beside, MISSING), "a": (tp, default)}
    assert "default" not in schema.infer_fields("f", fields).schema["properties"]["a"]


def test_a_default_file_of_a_model_is_not_announced() -> None:
    contract = schema.infer_input(WithFile)
    assert contract is not None
    assert "default" not in contract.schema["properties"]["inner"]
    assert contract.schema["properties"]["size"]["default"] == 1


@pytest.mark.parametrize(
    ("tp", "default"),
    [(Any, 2.0), (Any, [1, None]), (float, 2), (dict[str, Any], {"a": [1, {"b": "c"}]}), (tuple[int, int], (1, 2))],
    ids=str,
)
def test_a_default_that_comes_back_as_it_is_is_announced(tp: Any, default: Any) -> None:
    announced = schema.infer_fields("f", {"a": (tp, default)}).schema["properties"]["a"]["default"]
    assert announced == to_plain(default)


class Later(BaseModel):
    zebra: int
    apple: int = 1
    mango: str | None


@pytest.mark.parametrize("annotation", [Full, Holder, Typed, Row, Attrs, Defaults, Later, OfInt[str]], ids=str)
def test_fields_are_announced_in_the_order_of_their_declaration(annotation: Any) -> None:
    declared = {
        Full: ["ident", "tags", "color", "wait", "price", "raw", "at", "seed"],
        Holder: ["one", "many", "named", "pair", "either", "maybe", "some", "more"],
        Typed: ["a", "b", "c"],
        Row: ["x", "slots"],
        Attrs: ["a", "_private", "items", "next"],
        Defaults: list("zyxwvutsrqpon"),
        Later: ["zebra", "apple", "mango"],
        OfInt[str]: ["item", "items", "own"],
    }
    contract = schema.infer_input(annotation)
    assert contract is not None
    assert list(contract.schema["properties"]) == declared[annotation]


def test_arguments_are_announced_in_their_order() -> None:
    contract = schema.infer_fields("f", {"z": (int, 1), "a": (str, MISSING), "m": (Slots, MISSING)})
    assert list(contract.schema["properties"]) == ["z", "a", "m"]


# ------------------------------------------------------------------------------------------------------ numbers, keys


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1"), (1.10, "1.1"), (0.1, "0.1"), ("1.10", "1.10"), (2**70, str(2**70))]
)
@pytest.mark.parametrize(
    "annotation", [decimal.Decimal, Annotated[decimal.Decimal, Field(gt=0)]], ids=["msgspec", "pydantic"]
)
def test_decimals_come_as_numbers_and_as_texts(annotation: Any, number: Any, text: str) -> None:
    contract = schema.infer_fields("f", {"price": (annotation, MISSING)})
    jsonschema_rs.validator_for(contract.schema).validate({"price": number})
    assert str(contract.convert({"price": number})["price"]) == text


@dataclass
class Numbers:
    count: int
    by: dict[int, Slots]
    colors: dict[Color, int]


def test_values_that_json_writes_differently_are_understood() -> None:
    value = made(Numbers, {"count": 2.0, "by": {"1": {"a": 1}}, "colors": {"red": 1}})
    assert value == Numbers(2, {1: Slots(1, None)}, {Color.RED: 1})


@dataclass
class Price:
    amount: Annotated[float, msgspec.Meta(multiple_of=0.01, gt=0)]
    pieces: Annotated[int, msgspec.Meta(multiple_of=5)] = 5


@pytest.mark.parametrize("amount", [19.99, 0.07, 1, 1e6, 33.3])
def test_a_multiple_of_a_fraction_is_one_in_decimals(amount: float) -> None:
    assert made(Price, {"amount": amount}) == Price(amount)


@pytest.mark.parametrize(
    ("value", "path"),
    [({"amount": 0.015}, "amount"), ({"amount": 0}, "amount"), ({"amount": 1, "pieces": 3}, "pieces")],
)
def test_what_is_no_multiple_is_refused(value: Any, path: str) -> None:
    contract = schema.infer_input(Price)
    assert contract is not None
    with pytest.raises(InvalidValue, match=rf"^\$\.{path}: "):
        contract.convert(value)


class TaggedRow(msgspec.Struct, tag=True, array_like=True):
    by: dict[float, int]


@dataclass
class Nested:
    rows: list[tuple[int, dict[decimal.Decimal, Slots]]]
    some: frozenset[Slots] = frozenset()


@pytest.mark.parametrize(
    ("tp", "value", "path"),
    [
        (dict[float, str], {"1": "a", "1.0": "b"}, "$.a"),
        (dict[uuid.UUID, int], {str(uuid.UUID(int=10)): 1, str(uuid.UUID(int=10)).upper(): 2}, "$.a"),
        (dict[dt.datetime, int], {"2020-01-01T00:00:00Z": 1, "2020-01-01T01:00:00+01:00": 2}, "$.a"),
        (Annotated[dict[float, int], msgspec.Meta(min_length=2)], {"1": 1, "1.0": 2}, "$.a"),
        (TaggedRow, ["TaggedRow", {"1": 1, "1.0": 2}], "$.a[0]"),
        (Nested, {"rows": [[1, {}], [2, {"1": {"a": 1}, "1.0": {"a": 2}}]]}, "$.a.rows[1][1]"),
    ],
    ids=str,
)
def test_keys_that_would_become_one_are_refused(tp: Any, value: Any, path: str) -> None:
    with pytest.raises(InvalidValue, match="some of its keys are the same: '") as found:
        schema.infer_fields("f", {"a": (tp, MISSING)}).convert({"a": value})
    assert found.value.problems[0].path == path


def test_keys_that_are_not_texts_are_read_wherever_they_are() -> None:
    by = {1.5: Slots(1, None)}
    rows = [[1, {"1.5": {"a": 1}, "2": {"a": 2}}]]
    assert made(Nested, {"rows": rows, "some": [{"a": 3}]}) == Nested(
        [(1, {decimal.Decimal("1.5"): Slots(1, None), decimal.Decimal(2): Slots(2, None)})],
        frozenset({Slots(3, None)}),
    )
    assert made(dict[float, Slots], {"1.5": {"a": 1}}) == by
    assert schema.infer_fields("f", {"a": (TaggedRow, MISSING)}).convert({"a": ["TaggedRow", {"1": 1}]})["a"].by == {
        1.0: 1
    }


@pytest.mark.parametrize("beside", [int, Beside], ids=["msgspec", "pydantic"])
@pytest.mark.parametrize(
    ("tp", "sent", "value"),
    [
        (Iterable[int], [1, 2], [1, 2]),
        (Iterable, [1, "a"], [1, "a"]),
        (list[Iterable[int]], [[1]], [[1]]),
        (Iterable[dt.date], ["2020-01-01"], [dt.date(2020, 1, 1)]),
    ],
    ids=str,
)
def test_an_iterable_is_a_list_that_was_checked(tp: Any, sent: Any, value: Any, beside: Any) -> None:
    contract = schema.infer_fields("f", {"a": (tp, MISSING), "b": (beside | None, None)})
    found = contract.convert({"a": sent})["a"]
    assert (found, type(found)) == (value, list)
    if tp is not Iterable:
        with pytest.raises(InvalidValue):
            contract.convert({"a": ["x"]})


@dataclass
class Around:
    a: Iterable[int]
    b: Beside | None = None


class TypedAround(TypedDict):
    a: Iterable[int]
    b: Beside


@pytest.mark.parametrize("tp", [Around, TypedAround])
def test_an_iterable_beside_a_model_of_pydantics_is_a_list_too(tp: Any) -> None:
    contract = schema.infer_fields("f", {"x": (tp, MISSING)})
    made = contract.convert({"x": {"a": [1], "b": {}}})["x"]
    assert (made.a if tp is Around else made["a"]) == [1]
    with pytest.raises(InvalidValue, match=r"\$\.x\.a"):
        contract.convert({"x": {"a": ["x"], "b": {}}})


class Picture(BaseModel):
    raw: bytes = b"as pydantic reads it"


@dataclass
class Upload:
    picture: Picture | None = None
    raw: bytes = b"ab"
    many: list[bytes] = field(default_factory=list)


class Sent(TypedDict):
    picture: Picture
    raw: bytes


BASE64: dict[str, Any] = {"type": "string", "contentEncoding": "base64"}


@pytest.mark.parametrize("beside", [int, Picture], ids=["msgspec", "pydantic"])
@pytest.mark.parametrize(
    ("tp", "sent", "value"),
    [
        (bytes, "+/8=", b"\xfb\xff"),
        (list[bytes], ["/w=="], [b"\xff"]),
        (bytes | int, "/w==", b"\xff"),
        (dict[str, bytes], {"a": "/w=="}, {"a": b"\xff"}),
        (Upload, {"raw": "/w==", "many": ["YQ=="]}, Upload(None, b"\xff", [b"a"])),
        (Sent, {"picture": {"raw": "/w=="}, "raw": "/w=="}, {"picture": Picture(raw=b"/w=="), "raw": b"\xff"}),
    ],
    ids=str,
)
def test_bytes_are_base64_whatever_is_beside_them(tp: Any, sent: Any, value: Any, beside: Any) -> None:
    contract = schema.infer_fields("f", {"a": (tp, MISSING), "b": (beside | None, None)})
    assert contract.convert({"a": sent})["a"] == value
    output = schema.infer_output(dict[str, tp | Picture])
    assert output is not None
    written = without_nulls(output.write({"k": value}))
    assert written["k"] == ({**sent, "raw": "/w=="} if tp is Upload else sent)
    jsonschema_rs.validator_for(output.schema).validate(written)


@pytest.mark.parametrize("tp", [bytes, Annotated[bytes, Field(min_length=1)]], ids=["msgspec", "pydantic"])
def test_bytes_that_are_no_base64_are_refused(tp: Any) -> None:
    contract = schema.infer_fields("f", {"a": (tp, MISSING)})
    with pytest.raises(InvalidValue, match=r"\$.a: Invalid base64 encoded string"):
        contract.convert({"a": "###"})
    with pytest.raises(InvalidValue, match="at least 3 bytes"):
        schema.infer_fields("f", {"a": (Annotated[bytes, Field(min_length=3)], MISSING)}).convert({"a": "YQ=="})


def test_bytes_are_announced_as_base64_and_their_defaults_as_they_are_read() -> None:
    contract = schema.infer_input(Upload)
    assert contract is not None
    fields = contract.schema["properties"]
    assert {**fields["raw"], "title": ""} == {**BASE64, "title": ""}  # as text, its default would be another value
    given = schema.infer_fields("f", {"a": (bytes, b"\xff"), "b": (Picture | None, None)}).schema["properties"]["a"]
    assert {**given, "title": ""} == {**BASE64, "default": "/w==", "title": ""}
    assert schema.infer_input(Picture).schema["properties"]["raw"]["format"] == "binary"  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------ properties

_SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**53), 2**53),
    str: st.text(max_size=5),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False, width=32),
    Color: st.sampled_from(Color),
    dt.date: st.dates(),
    dt.timedelta: st.timedeltas(dt.timedelta(), dt.timedelta(days=99)),
    decimal.Decimal: st.decimals(-1000, 1000, places=2),
    bytes: st.text(max_size=5).map(str.encode),
}


@st.composite
def typed_values(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """A type, and what its values are drawn from."""
    kinds = ["simple", "list", "dict", "none"] + (["class"] if depth else [])
    kind = draw(st.sampled_from(kinds))
    if kind == "class":
        return draw(classes(depth=depth - 1))
    tp = draw(st.sampled_from(list(_SIMPLE)))
    values = _SIMPLE[tp]
    if kind == "list":
        return list[tp], st.lists(values, max_size=2)
    if kind == "dict":
        return dict[str, tp], st.dictionaries(st.text(max_size=3), values, max_size=2)
    if kind == "none":
        return tp | None, st.none() | values
    return tp, values


@st.composite
def classes(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """A dataclass or a pydantic model with fields of all kinds, and what its objects are drawn from."""
    fields = draw(st.lists(typed_values(depth=depth), min_size=1, max_size=4))
    names = [f"f{index}" for index in range(len(fields))]
    values = st.fixed_dictionaries({name: strategy for name, (_, strategy) in zip(names, fields, strict=True)})
    optional = {
        name: None if admits_none(tp) else draw(strategy)  # None cannot be sent where it is not the default
        for name, (tp, strategy) in zip(names, fields, strict=True)
        if draw(st.booleans())
    }
    if draw(st.booleans()):
        cls: Any = pydantic.create_model(
            f"Model{depth}", **{n: (tp, optional.get(n, ...)) for n, (tp, _) in zip(names, fields, strict=True)}
        )
    else:
        made_of: list[Any] = []
        for name, (tp, _) in zip(names, fields, strict=True):
            default = {"default_factory": functools.partial(_same, optional[name])} if name in optional else {}
            made_of.append((name, tp, field(kw_only=True, **default)))
        cls = dataclasses.make_dataclass(f"Data{depth}", made_of, slots=draw(st.booleans()))
    return cls, values.map(lambda given: cls(**given))


def _same(value: Any) -> Any:
    return value


@given(st.data())
def test_a_value_goes_out_and_comes_back_as_itself(data: st.DataObject) -> None:
    cls, values = data.draw(classes())
    value = data.draw(values)
    params = sent(cls, value)
    assert made(cls, params) == value
    if issubclass(cls, BaseModel):
        assert params == without_nulls(json.loads(value.model_dump_json(by_alias=True)))
    elif not any(issubclass(type(each), BaseModel) for each in _inside(value)):
        assert params == without_nulls(json.loads(msgspec.json.encode(value)))


def _inside(value: Any) -> list[Any]:
    found = [value]
    for each in getattr(value, "__dataclass_fields__", {}):
        found += _inside(getattr(value, each))
    return found


@given(st.data())
def test_params_without_defaults_are_what_the_constructor_makes(data: st.DataObject) -> None:
    cls, values = data.draw(classes(depth=0))
    value = data.draw(values)
    params: dict[str, Any] = sent(cls, value)
    contract = schema.infer_input(cls)
    assert contract is not None
    needed = {name: each for name, each in params.items() if name in contract.schema.get("required", ())}
    kept = {name: getattr(value, name) for name in needed}
    nullable = {name: None for name in _fields(cls) if name not in needed and _has_no_default(cls, name)}
    assert made(cls, needed) == cls(**kept, **nullable)


def _fields(cls: Any) -> list[str]:
    return list(getattr(cls, "model_fields", None) or cls.__dataclass_fields__)


def _has_no_default(cls: Any, name: str) -> bool:
    if issubclass(cls, BaseModel):
        return cls.model_fields[name].is_required()
    found = cls.__dataclass_fields__[name]
    return bool(found.default is MISSING and found.default_factory is MISSING)
