"""`assert_contract`: which changes of a worker break who relies on it, and which do not."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from avtomatika_worker import Worker
from avtomatika_worker.testing import assert_contract


def worker_of(params: Any = None, output: Any = None, *, name="resize", **declared):
    worker = Worker()

    @worker.skill(name=name, input_schema=params, output_schema=output, **declared)
    async def skill(params: dict): ...

    return worker


def objects(**properties):
    """An object whose fields are required, unless their names end with ``_``."""
    return {
        "type": "object",
        "properties": {name.rstrip("_"): schema for name, schema in properties.items()},
        "required": [name for name in properties if not name.endswith("_")],
    }


INTEGER, NUMBER, TEXT, NULL = ({"type": kind} for kind in ("integer", "number", "string", "null"))


def broken(tmp_path, old, new):
    """Return what is said of a change: a line for each break."""
    assert_contract(old, tmp_path / "contract.json", update=True)
    try:
        assert_contract(new, tmp_path / "contract.json")
    except AssertionError as error:
        first, *lines, last = str(error).splitlines()
        assert first == f"the worker breaks its contract {tmp_path / 'contract.json'}:"
        assert "AVTOMATIKA_UPDATE_CONTRACT=1" in last
        return [line.strip() for line in lines]
    return []


class Case(NamedTuple):
    old: Any
    new: Any
    line: str | None = None


INPUT = {
    "optional param added": Case(objects(a=TEXT), objects(a=TEXT, b_=TEXT)),
    "required param added": Case(objects(a=TEXT), objects(a=TEXT, b=TEXT), "params.b is required now"),
    "param made optional": Case(objects(a=TEXT), objects(a_=TEXT)),
    "param made required": Case(objects(a_=TEXT), objects(a=TEXT), "params.a is required now"),
    "param gone": Case(objects(a_=TEXT), objects(b_=TEXT), "params.a is no longer read"),
    "type widened": Case(objects(a=INTEGER), objects(a=NUMBER)),
    "type narrowed": Case(objects(a=NUMBER), objects(a=INTEGER), "params.a was number and must be integer now"),
    "null added": Case(objects(a=TEXT), objects(a={"anyOf": [TEXT, NULL]})),
    "null removed": Case(
        objects(a={"anyOf": [TEXT, NULL]}), objects(a=TEXT), "params.a was null and must be string now"
    ),
    "type of a list removed": Case(
        objects(a={"type": ["string", "null", "integer"]}),
        objects(a={"type": ["string", "integer"]}),
        "params.a may no longer be null",
    ),
    "value added": Case(objects(a={"enum": ["x"]}), objects(a={"enum": ["x", "y"]})),
    "value removed": Case(objects(a={"enum": ["x", "y"]}), objects(a={"enum": ["x"]}), 'params.a may no longer be "y"'),
    "values limited": Case(objects(a=TEXT), objects(a={**TEXT, "enum": ["x"]}), 'params.a is limited to ["x"] now'),
    "bound loosened": Case(objects(a={**INTEGER, "minimum": 5}), objects(a={**INTEGER, "minimum": 1})),
    "bound tightened": Case(
        objects(a={**INTEGER, "minimum": 1}),
        objects(a={**INTEGER, "minimum": 5}),
        "params.a: minimum was 1 and is 5 now",
    ),
    "bound added": Case(
        objects(a=TEXT), objects(a={**TEXT, "maxLength": 9}), "params.a: maxLength was none and is 9 now"
    ),
    "bound made exclusive": Case(
        objects(a={**NUMBER, "maximum": 5}),
        objects(a={**NUMBER, "exclusiveMaximum": 5}),
        "params.a: maximum was 5 and is 5, exclusively, now",
    ),
    "pattern added": Case(
        objects(a=TEXT), objects(a={**TEXT, "pattern": "x"}), 'params.a: pattern was none and is "x" now'
    ),
    "inside of an array": Case(
        objects(a={"type": "array", "items": objects(b_=TEXT)}),
        objects(a={"type": "array", "items": objects(b=TEXT)}),
        "params.a[].b is required now",
    ),
    "values of a map": Case(
        objects(a={"type": "object", "additionalProperties": NUMBER}),
        objects(a={"type": "object", "additionalProperties": INTEGER}),
        "params.a.* was number and must be integer now",
    ),
    "unknown refused": Case(
        objects(a=TEXT),
        {**objects(a=TEXT), "additionalProperties": False},
        "params: unknown fields are refused now",
    ),
    "schema dropped": Case(objects(a=TEXT), None),
    "schema added": Case(None, objects(a=TEXT), "params was anything and must be object now"),
}
OUTPUT = {
    "field added": Case(objects(a=TEXT), objects(a=TEXT, b=TEXT)),
    "field gone": Case(objects(a=TEXT, b_=TEXT), objects(a=TEXT), "data.b is no longer returned"),
    "field may be missing": Case(objects(a=TEXT), objects(a_=TEXT), "data.a may be missing now"),
    "field always there": Case(objects(a_=TEXT), objects(a=TEXT)),
    "type widened": Case(objects(a=INTEGER), objects(a=NUMBER), "data.a was integer and may be number now"),
    "type narrowed": Case(objects(a=NUMBER), objects(a=INTEGER)),
    "null added": Case(objects(a=TEXT), objects(a={"anyOf": [TEXT, NULL]}), "data.a was string and may be null now"),
    "value added": Case(objects(a={"enum": ["x"]}), objects(a={"enum": ["x", "y"]}), 'data.a may be "y" now'),
    "value removed": Case(objects(a={"enum": ["x", "y"]}), objects(a={"enum": ["x"]})),
    "bound loosened": Case(
        objects(a={**INTEGER, "maximum": 5}),
        objects(a={**INTEGER, "maximum": 9}),
        "data.a: maximum was 5 and is 9 now",
    ),
    "schema added": Case(None, objects(a=TEXT)),
    "schema dropped": Case(objects(a=TEXT), None, "data was object and may be anything now"),
}


@pytest.mark.parametrize("case", INPUT.values(), ids=INPUT)
def test_changes_of_params(tmp_path, case):
    expected = [f"resize: {case.line}"] if case.line else []
    assert broken(tmp_path, worker_of(case.old), worker_of(case.new))[:1] == expected


@pytest.mark.parametrize("case", OUTPUT.values(), ids=OUTPUT)
def test_changes_of_data(tmp_path, case):
    expected = [f"resize: {case.line}"] if case.line else []
    assert broken(tmp_path, worker_of(None, case.old), worker_of(None, case.new))[:1] == expected


EVENTS = {name: case for name, case in OUTPUT.items() if case.old is not None and case.new is not None}


@pytest.mark.parametrize("case", EVENTS.values(), ids=EVENTS)
def test_changes_of_events_are_those_of_data(tmp_path, case):
    expected = [f"resize: {case.line.replace('data', 'event alert')}"] if case.line else []
    found = broken(tmp_path, worker_of(events={"alert": case.old}), worker_of(events={"alert": case.new}))
    assert found[:1] == expected


def test_skills_types_events_and_statuses(tmp_path):
    old = worker_of(events={"alert": {"type": "object"}}, output_statuses=["late"])
    assert broken(tmp_path, old, worker_of(name="other")) == ["resize: the skill is gone"]
    new = worker_of(type="image", output_statuses=["late", "broken"])
    assert broken(tmp_path, old, new) == [
        "resize: its type was resize and is image now",
        "resize: event alert is no longer declared",
        "resize: status broken was not announced before",
    ]
    wider = worker_of(events={"alert": {"type": "object"}, "end": {"type": "object"}}, description="new", price=2)
    assert broken(tmp_path, old, wider) == []


class Node(Struct):
    name: Annotated[str, Meta(max_length=10)]
    kind: Literal["a", "b"] = "a"
    children: list[Node] = []


class Deeper(Struct):
    name: Annotated[str, Meta(max_length=5)]
    kind: Literal["a", "b"] = "a"
    children: list[Deeper] = []


def typed(model):
    worker = Worker()

    @worker.skill(name="walk")
    async def walk(params: model) -> model: ...

    return worker


def test_models_that_contain_themselves(tmp_path):
    assert broken(tmp_path, typed(Node), typed(Node)) == []
    assert broken(tmp_path, typed(Node), typed(Deeper)) == [
        "walk: params.name: maxLength was 10 and is 5 now",
        "walk: params.children[].name: maxLength was 10 and is 5 now",
    ]


def test_a_missing_or_broken_file_is_a_failure_that_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "contract.json"
    with pytest.raises(AssertionError, match=r"no contract .*AVTOMATIKA_UPDATE_CONTRACT=1, and commit it"):
        assert_contract(worker_of(), path)
    assert not path.exists()
    for text in ("{", "[]"):
        path.write_text(text, "utf-8")
        with pytest.raises(AssertionError, match="is not a contract"):
            assert_contract(worker_of(), path)
    monkeypatch.setenv("AVTOMATIKA_UPDATE_CONTRACT", "1")
    assert_contract(worker_of(), path)
    monkeypatch.delenv("AVTOMATIKA_UPDATE_CONTRACT")
    assert_contract(worker_of(), path)
    assert list(json.loads(path.read_text("utf-8"))["skills"]) == ["resize"]


LEAVES = st.sampled_from([INTEGER, NUMBER, TEXT, NULL, {"enum": ["x", 1]}, {**INTEGER, "minimum": 3}, {}])
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "b_", "c"]), inner, max_size=3).map(lambda fields: objects(**fields)),
        inner.map(lambda item: {"type": "array", "items": item}),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=6,
)


@given(SCHEMAS)
def test_no_schema_breaks_itself(schema):
    from avtomatika_worker.testing.compatibility import input_breaks, output_breaks

    copy = json.loads(json.dumps(schema))
    assert input_breaks(schema, copy) == output_breaks(schema, copy) == []
