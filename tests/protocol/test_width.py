"""The number of values in a document, counted before it is decoded."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.protocol.width import MOST_VALUES, is_too_wide


def wide(item: str, count: int = MOST_VALUES) -> bytes:
    return f"[{','.join([item] * count)}]".encode()


@pytest.mark.parametrize("item", ["[]", "{}", "1", '"a"', '{"a":1}', '"\\\\"', '"\\""', '[","]'])
def test_a_million_of_anything_is_too_wide(item):
    assert is_too_wide(wide(item, MOST_VALUES + 2))


@pytest.mark.parametrize("text", ["1,2,[3]{\n", '",', "\\,", '\\",', 'a"b\\[,'])
def test_a_text_is_one_value_whatever_it_contains(text):
    document = json.dumps({"csv": text * 800_000}).encode()
    assert len(document) > MOST_VALUES
    assert not is_too_wide(document)


def test_only_commas_and_brackets_count_outside_of_texts():
    assert not is_too_wide(b'["%s",1234567890]' % (b"," * 20), most=5)


def test_a_document_with_exactly_the_bound_is_not_too_wide_with_more_commas_in_its_texts():
    document = b'[",",1]'  # a bracket and a comma, and one in a text
    assert not is_too_wide(document, most=2)
    assert is_too_wide(document, most=1)


def test_a_document_within_the_bound_is_not_too_wide():
    assert not is_too_wide(wide("1.234567", MOST_VALUES - 1))
    assert not is_too_wide(b"")


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_the_count_is_that_of_commas_and_opening_brackets_outside_of_texts(value):
    def count(value):
        if isinstance(value, dict):
            return 1 + max(0, len(value) - 1) + sum(map(count, value.values()))
        if isinstance(value, list):
            return 1 + max(0, len(value) - 1) + sum(map(count, value))
        return 0

    document = json.dumps(value, separators=(",", ":")).encode()
    for most in (0, 1, 5, 20):
        assert is_too_wide(document, most) == (count(value) > most)
