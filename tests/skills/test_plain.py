"""What a skill returns or sends becomes plain JSON, or an error that says where it cannot."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import types
import uuid
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.skills.jsonable import to_plain


class Color(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclasses.dataclass
class Box:
    name: str
    content: Any = None


class Record(msgspec.Struct, rename="camel", tag="rec"):
    first_name: str
    extra: Any = None
    missing: int | msgspec.UnsetType = msgspec.UNSET


class Model(pydantic.BaseModel):
    when: dt.date
    url: str = pydantic.Field(default="x", alias="imageUrl")


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        ({"a": [1, 2.5, "x", True, None]}, {"a": [1, 2.5, "x", True, None]}),
        (Box("b", Color.RED), {"name": "b", "content": "red"}),
        (Record("Ann"), {"type": "rec", "firstName": "Ann", "extra": None}),
        (Model(when=dt.date(2020, 1, 2), imageUrl="u"), {"when": "2020-01-02", "imageUrl": "u"}),
        (
            Box("b", [Model(when=dt.date(2020, 1, 2))]),
            {"name": "b", "content": [{"when": "2020-01-02", "imageUrl": "x"}]},
        ),
        (Point(1), {"x": 1, "y": 0}),
        ({1}, [1]),
        (frozenset({"a"}), ["a"]),
        (deque([1, Color.RED]), [1, "red"]),
        (b"ab", "YWI="),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.50"), "1.50"),
        (dt.datetime(2020, 1, 2, 3, tzinfo=dt.UTC), "2020-01-02T03:00:00Z"),
        (PurePosixPath("a/b"), "a/b"),
        ({"p": PurePosixPath("a")}, {"p": "a"}),
        (OrderedDict(a=1), {"a": 1}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (ChainMap({"a": 1}), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (UserDict(a={"b": PurePosixPath("c")}), {"a": {"b": "c"}}),
    ],
    ids=repr,
)
def test_values_become_plain(value: object, plain: object) -> None:
    assert to_plain(value) == plain


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (1, "1"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        (Color.RED, "red"),
        (PurePosixPath("a/b"), "a/b"),
        (dt.date(2020, 1, 2), "2020-01-02"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
    ids=repr,
)
def test_keys_become_texts(key: object, text: str) -> None:
    assert to_plain({"in": {key: Box("b")}}) == {"in": {text: {"name": "b", "content": None}}}


def test_fields_beside_an_unusual_key_are_written_as_usual() -> None:
    assert to_plain(Record("Ann", {None: 1})) == {"type": "rec", "firstName": "Ann", "extra": {"null": 1}}
    assert to_plain(Box("b", {True: Model(when=dt.date(2020, 1, 2))}))["content"]["true"]["imageUrl"] == "x"


def test_a_named_tuple_inside_of_something_is_an_array() -> None:
    assert to_plain({"at": Point(1, 2)})["at"] == [1, 2]


@pytest.mark.parametrize(
    ("value", "path", "named"),
    [
        (Opaque(), "$", "Opaque"),
        ({"a": [0, 1, 2, {"b": Opaque()}]}, "$.a[3].b", "Opaque"),
        (Box("b", {"f": len}), "$.content.f", "builtin_function_or_method"),
        (Record("Ann", [1, 1j]), "$.extra[1]", "complex"),
        (Point(1, Opaque()), "$.y", "Opaque"),  # type: ignore[arg-type]
        ([range(2)], "$[0]", "range"),
        (UserDict(a=Opaque()), "$.a", "Opaque"),
        ({"k": {(1, 2): 0}}, "$.k", "tuple"),
        ({"k": {Opaque(): 0}}, "$.k", "Opaque"),
        (Opaque, "$", "type"),
        (Model, "$", "Metaclass"),
        ((each for each in ()), "$", "generator"),
    ],
    ids=[
        "top",
        "deep",
        "dataclass",
        "struct",
        "named tuple",
        "range",
        "mapping",
        "tuple key",
        "key",
        "class",
        "model class",
        "generator",
    ],
)
def test_a_value_that_cannot_be_sent_is_named_with_its_path(value: object, path: str, named: str) -> None:
    with pytest.raises(UnsendableValueError) as caught:
        to_plain(value)
    assert caught.value.path == path
    assert named in caught.value.problem


def test_a_cycle_is_found_where_it_closes() -> None:
    value: dict[str, Any] = {"a": [1]}
    value["a"].append(value)
    with pytest.raises(UnsendableValueError, match="contains itself") as caught:
        to_plain(value)
    assert caught.value.path == "$.a[1]"


@pytest.mark.parametrize(
    ("value", "path", "keys"),
    [
        ({1: "a", "1": "b"}, "$", ("1", "'1'")),
        ({"a": [{"ok": 1}, {None: 1, "null": 2}]}, "$.a[1]", ("None", "'null'")),
        ({"a": ({True: 1, "true": 2},)}, "$.a[0]", ("True", "'true'")),
        ({"a": {1.5: 1, "1.5": 2}}, "$.a", ("1.5", "'1.5'")),
        (types.MappingProxyType({Color.RED: 1, "red": 2}), "$", ("Color.RED", "'red'")),
        ({"a": Counter([2, "2"])}, "$.a", ("2", "'2'")),
    ],
)
def test_keys_that_are_the_same_in_json_are_named_with_their_path(value: object, path: str, keys: Any) -> None:
    with pytest.raises(UnsendableValueError, match="are the same in JSON") as caught:
        to_plain(value)
    assert caught.value.path == path
    assert all(each in caught.value.problem for each in keys)


def test_the_same_value_twice_is_not_a_cycle() -> None:
    shared = {None: 1}  # an unusual key: it takes the way that looks for cycles
    assert to_plain({"a": shared, "b": [shared]}) == {"a": {"null": 1}, "b": [{"null": 1}]}


def test_endless_nesting_raises_an_error_of_the_package() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UnsendableValueError, match="too deep"):
        to_plain(value)


def test_a_model_that_cannot_be_dumped_says_why() -> None:
    class Holder(pydantic.BaseModel):
        inside: Any

    with pytest.raises(UnsendableValueError, match="Opaque") as caught:
        to_plain({"m": [Holder(inside=Opaque())]})
    assert caught.value.path == "$.m[0].inside"


class Masked(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "***"


class Rounded(float):
    __slots__ = ()

    def __float__(self) -> float:
        return 9.0


class Renamed(int):
    def __int__(self) -> int:
        return 99


@pytest.mark.parametrize(
    ("value", "plain"),
    [(Masked("a"), "a"), (Rounded(1.5), 1.5), (Renamed(5), 5), ({Masked("a"): 1}, {"a": 1})],
    ids=str,
)
def test_what_a_subclass_holds_is_sent_not_what_it_shows(value: Any, plain: Any) -> None:
    assert to_plain([value]) == [plain]


@pytest.mark.parametrize(
    ("value", "unit", "plain"),
    [
        ("2020-01-01T05:00", "ns", "2020-01-01T05:00:00"),
        ("2020-01-01T05:00", "25ns", "2020-01-01T05:00:00"),
        ("2020-01-01", "D", "2020-01-01"),
        (["2020-01-01", "NaT"], "ns", ["2020-01-01T00:00:00", None]),
        ([["2020-01-01"]], "ns", [["2020-01-01T00:00:00"]]),
        ([], "ns", []),
    ],
    ids=str,
)
def test_numpy_dates_are_texts_whatever_their_unit(value: Any, unit: str, plain: Any) -> None:
    assert to_plain(np.array(value, f"datetime64[{unit}]")) == plain
    if isinstance(value, str):
        assert to_plain({"a": np.datetime64(value, unit)}) == {"a": plain}


def test_numpy_durations_are_texts_whatever_their_unit() -> None:
    assert to_plain(np.timedelta64(3000, "ns")) == to_plain(np.timedelta64(3, "us")) == "PT0.000003S"


@pytest.mark.parametrize(
    "value",
    [np.timedelta64(1, "M"), np.timedelta64(1, "ns"), np.datetime64("20000-01-01"), np.array([1], "datetime64[ns]")],
    ids=str,
)
def test_numpy_times_that_python_has_no_type_for_are_refused(value: Any) -> None:
    with pytest.raises(
        UnsendableValueError, match=r"cannot be written exactly: convert it, as in x.astype\('.8\[us\]'\)"
    ):
        to_plain(value)


def test_a_number_longer_than_those_of_json_is_refused() -> None:
    with pytest.raises(UnsendableValueError, match="JSON's numbers are shorter"):
        to_plain([np.longdouble(1.5)])


def test_numpy_values_are_recognized_by_their_module_alone() -> None:
    array = type("ndarray", (), {"__module__": "numpy", "tolist": lambda self: [1, 2.5]})
    scalar = type("float32", (), {"__module__": "numpy", "item": lambda self: 2.5})
    assert to_plain({"a": array(), "s": scalar()}) == {"a": [1, 2.5], "s": 2.5}


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


_own_keys = st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.binary()
_hashable = st.none() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
_own = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(_own_keys, inner)
        | st.sets(_hashable)
        | st.frozensets(_hashable)
    ),
    max_leaves=20,
)


@given(_own)
def test_builtin_values_are_written_the_same_with_and_without_others(value: object) -> None:
    alone = written([value, "p"])
    beside = written([value, PurePosixPath("p")])  # what msgspec does not know: the whole is walked
    assert repr(alone) == repr(beside)  # equal, and of the same types


def written(value: object) -> Any:
    try:
        return to_plain(value)
    except UnsendableValueError as error:  # two keys that are the same in JSON
        return error.path, error.problem


def test_an_enums_value_is_written_as_any_other() -> None:
    kinds = enum.Enum("Kinds", {"PAIR": (1, PurePosixPath("a")), "FILE": PurePosixPath("b")})
    assert to_plain(list(kinds)) == [[1, "a"], "b"]


def test_a_returned_error_is_refused_with_advice_to_raise_it() -> None:
    with pytest.raises(UnsendableValueError, match="raise it"):
        to_plain({"error": KeyError("x")})


@given(_plain)
def test_plain_values_stay_as_they_are(value: object) -> None:
    assert to_plain(value) == value


_sendable = st.recursive(
    _plain | st.sampled_from([Color.RED, Point(1), b"x", {1}, PurePosixPath("p"), Record("r")]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().map("_".__add__) | st.none() | st.booleans(), inner),
    max_leaves=10,
)


@given(_sendable)
def test_the_outcome_is_always_json(value: object) -> None:
    json.dumps(to_plain(value))


@given(_sendable)
def test_one_opaque_value_spoils_all(value: object) -> None:
    with pytest.raises(UnsendableValueError, match="Opaque"):
        to_plain({"before": value, "here": [value, Opaque()]})
