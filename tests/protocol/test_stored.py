"""Schemas have no empty objects left that Redis would make arrays of, and allow what they allowed before."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.protocol.redis_safe_schema import storable_schema, storable_schemas

SIMPLE: list[dict[str, Any]] = [{}, {"type": "string"}, {"type": "integer", "minimum": 0}, {"const": {}}]
DEFAULTS = st.sampled_from([{}, [{}], {"a": {}}, {"a": 1}])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


def composed(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    named = st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": named},
            optional={"additionalProperties": inner, "default": DEFAULTS, "$defs": named},
        ),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"not": inner}),
    )


SCHEMAS = st.recursive(st.sampled_from(SIMPLE), composed, max_leaves=6)


def empty_objects(node: Any, keyword: str = "") -> bool:
    if keyword == "const":
        return False
    if isinstance(node, dict):
        return not node or any(empty_objects(each, key) for key, each in node.items())
    return isinstance(node, list) and any(map(empty_objects, node))


@given(schema=SCHEMAS, value=VALUES)
def test_a_storable_schema_allows_the_same_and_has_no_empty_object(schema: dict[str, Any], value: Any) -> None:
    stored = storable_schema(schema)
    assert stored is not None
    assert not empty_objects(stored)
    assert jsonschema_rs.is_valid(stored, value) == jsonschema_rs.is_valid(schema, value)


def test_a_field_that_is_called_like_a_keyword_stays() -> None:
    schema = {"type": "object", "properties": {"properties": {"type": "object", "properties": {}}, "default": {}}}
    assert storable_schema(schema) == {
        "type": "object",
        "properties": {"properties": {"type": "object"}, "default": {"$comment": "anything"}},
    }


def test_missing_schemas_are_none() -> None:
    assert storable_schema(None) is None
    assert storable_schemas({}) is None
    assert storable_schemas({"alert": {}}) == {"alert": {"$comment": "anything"}}


@pytest.mark.parametrize("keyword", ["default", "const", "enum", "examples", "example"])
def test_what_is_data_in_a_schema_stays_as_it_is(keyword: str) -> None:
    data = [{"properties": {"a": 1}, "b": [{"c": {"$ref": 1}}]}]
    assert storable_schema({keyword: data}) == {keyword: data}


@pytest.mark.parametrize("keyword", ["const", "enum", "examples", "example"])
def test_empty_objects_in_the_data_of_a_schema_stay(keyword: str) -> None:
    assert storable_schema({keyword: [{}]}) == {keyword: [{}]}
