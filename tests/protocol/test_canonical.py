"""Canonical form and signature against what real orchestrators compute (tests/data/signing-vectors.json)."""

import enum
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.protocol.canonical import canonical_at_once, canonical_bytes, canonical_data
from avtomatika_worker.protocol.dialects import DIALECTS, NEWEST, choose
from avtomatika_worker.protocol.signing import Signer, signed_bytes, verify_message
from avtomatika_worker.skills.jsonable import to_plain


class Color(enum.Enum):
    RED = "r.0,"


VECTORS = json.loads((Path(__file__).parent.parent / "data" / "signing-vectors.json").read_text("utf-8"))
CASES = [
    (case, expected, version)
    for case in VECTORS["cases"]
    for expected in case["expected"]
    for version in expected["versions"]
]
# What 1.0b7 computes depends on the orjson it runs (1e16 or 1e+16), or is not what was sent: we send the integer form,
# or refuse (RXON.md, "Signing").
STRICTER = {"float_shortest", "float_large_integral", "float_beyond_64_bit", "float_max", "integer_beyond_64_bit"}


@pytest.mark.parametrize(("case", "expected", "version"), CASES, ids=lambda value: str(value)[:40])
def test_the_canonical_form_and_signature_are_the_orchestrators(case, expected, version):
    dialect = choose(version).dialect
    message = json.loads(case["wire"])
    ignored = frozenset(case["ignore_fields"])
    if "error" in expected:
        with pytest.raises(UnsendableValueError):
            signed_bytes(message, dialect, ignored)
        return
    if version == "1.0b7" and case["name"] in STRICTER:
        try:
            sent = signed_bytes(message, dialect, ignored)
        except UnsendableValueError:
            return
        assert orjson.loads(sent) == message, "in its safe form, it is the same value"
        return
    data = signed_bytes(message, dialect, ignored)
    assert Signer(VECTORS["secret"]).sign(data) == expected["signature"]
    if case["name"] != "underscore_keys":  # 1.0b14 and 1.0b15 sign more than they print
        assert data.decode() == expected["canonical"]


@pytest.mark.parametrize("version", [dialect.version for dialect in DIALECTS])
@pytest.mark.parametrize(
    ("value", "path"),
    [
        (float("nan"), "$.data.x"),
        (float("inf"), "$.data.x"),
        (2**64, "$.data.x"),
        (-(2**63) - 1, "$.data.x"),
        (1e20, "$.data.x"),
        ("\ud800", "$.data.x"),
        ([1, {"deep": float("nan")}], "$.data.x[1].deep"),
        (..., "$.data.x"),
    ],
    ids=["NaN", "infinity", "too large", "too small", "1e20", "surrogate", "nested", "ellipsis"],
)
def test_a_value_that_cannot_be_sent_is_named_by_its_path(version, value, path):
    with pytest.raises(UnsendableValueError) as caught:
        canonical_bytes({"data": {"x": value}}, choose(version).dialect)
    assert caught.value.path == path


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e15, 1e15) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.sampled_from(DIALECTS))
def test_canonicalizing_what_was_sent_changes_nothing(message, dialect):
    sent = canonical_bytes(message, dialect)
    assert canonical_bytes(orjson.loads(sent), dialect) == sent


@given(st.dictionaries(st.text(min_size=1), JSON, max_size=5), st.sampled_from(DIALECTS))
def test_a_signature_fits_its_message_and_no_other_key(message, dialect):
    message.pop("security", None)
    signature = Signer("right").sign(signed_bytes(message, dialect))
    signed = {**message, "security": {"signature": signature}}
    assert verify_message(signed, Signer("right"), dialect)
    assert not verify_message(signed, Signer("wrong"), dialect)


# Everything that the quick way must leave to the walk in Python, or do as that does: texts that look like numbers and
# nulls, numbers at the edges, values that JSON lacks.
TRICKY = st.sampled_from(
    [
        *(1.0, -0.0, 0.0, 1e15, 1e16, 1e17, 1e-7, 0.5, 2**63, 2**64 - 1, 2**64, -(2**63) - 1),
        *(float("nan"), float("inf"), None, True, [], {}, ["null"], {"x": None}, [None, 1.0]),
        *("1.0,", "x.0]", ".0}", "null", "e+16", '\\".0,', "\ud800", "é", uuid.UUID(int=7), Color.RED, (1.0, 2)),
    ]
)
TREES = st.recursive(
    JSON | TRICKY, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@given(st.dictionaries(st.text(), TREES, max_size=5), st.sampled_from(DIALECTS), st.integers(0, 5))
def test_what_is_written_at_once_is_what_the_walk_in_python_writes(value, dialect, depth):
    at_once = canonical_at_once(value, dialect, depth)
    if at_once is not None:
        assert at_once == walked(value, dialect, depth)


def walked(value, dialect, depth):
    """Write it without the quick way: a null on top keeps the message from it, and is not sent."""
    message = {"n": None, "v": to_plain(value)}
    for _ in range(depth - 1):
        message = {"n": None, "v": message}
    if depth == 0:
        return canonical_bytes({**to_plain(value), next(key for key in "abcdef" if key not in value): None}, dialect)
    body = canonical_bytes(message, dialect)
    return body[len(b'{"v":') * depth : -depth]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.version)
@pytest.mark.parametrize("depth", [0, 1, 7])
@pytest.mark.parametrize("filler", ["", "x" * 10_000], ids=["small", "large"])
@pytest.mark.parametrize("make", [lambda value: [value], lambda value: {"a": value}], ids=["arrays", "objects"])
def test_no_value_is_written_at_once_that_is_nested_deeper_than_the_dialect_allows(dialect, depth, filler, make):
    value = 1
    for containers in range(1, dialect.max_nesting + 20):
        value = make(value)
        at_once = canonical_at_once([filler, value], dialect, depth)
        allowed = depth + containers + 1 <= dialect.max_nesting
        assert (at_once is not None) == allowed, containers


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.version)
def test_a_flat_object_counts_as_a_level_when_it_is_written_at_once(dialect):
    assert canonical_at_once({"x": 1}, dialect, dialect.max_nesting - 1) == b'{"x":1}'
    assert canonical_at_once({"x": 1}, dialect, dialect.max_nesting) is None


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.version)
def test_a_value_written_at_once_is_the_root_unless_a_depth_is_given(dialect):
    value = 1
    for _ in range(dialect.max_nesting):
        value = [value]
    assert canonical_at_once(value, dialect) == orjson.dumps(value)
    assert canonical_at_once([value], dialect) is None


def test_nothing_is_embedded_that_was_written_elsewhere():
    fragment = orjson.Fragment(b'{"x": NaN, "security": 1')
    assert canonical_at_once({"data": fragment}, DIALECTS[-1]) is None
    assert canonical_at_once([{"deep": [fragment]}, ["x"] * 10_000], DIALECTS[-1]) is None
    del fragment
    assert canonical_at_once([{"deep": [1.0]}, ["x"]], DIALECTS[-1]) == b'[{"deep":[1]},["x"]]'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"path": "C:\\", "n": 1.0}, b'{"n":1,"path":"C:\\\\"}'),
        ({"a": '"1.0,"', "n": 2.0}, None),
        ({"a": "1.0,", "n": 2.0}, None),
        ({"a": "\\", "n": [-0.0, 1.0]}, None),
        ({"n": [-0.0, 1.0]}, None),
        ({"n": [10.0, -10.0, 1.5]}, b'{"n":[10,-10,1.5]}'),
    ],
    ids=["a backslash", "a quote", "a comma", "minus zero and a backslash", "minus zero", "none of these"],
)
def test_numbers_without_fractions_are_shortened_at_once_unless_a_text_looks_like_one(value, written):
    assert canonical_at_once(value, NEWEST) == written
    whole = orjson.loads(canonical_bytes(value, NEWEST))
    assert whole == value
    assert ".0" not in str({key: each for key, each in whole.items() if key == "n"})


def test_values_that_are_written_side_by_side_are_not_mixed_up():
    with ThreadPoolExecutor(8) as pool:
        values = [{"n": number, "x": [float(number)] * 50} for number in range(2_000)]
        written = list(pool.map(lambda value: canonical_at_once(value, DIALECTS[-1]), values))
    assert any(written)  # one that was disturbed is None, and walked through
    assert all(each is None or orjson.loads(each) == value for each, value in zip(written, values, strict=True))


def test_a_key_never_shows():
    assert "hunter2" not in repr(Signer("hunter2"))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(VALUES, st.integers(0, 40), st.sampled_from(DIALECTS))
def test_what_is_written_at_once_can_be_sent(value, levels, dialect):
    for _ in range(levels):
        value = [value]
    data = {"x": value}
    if (at_once := canonical_at_once(data, dialect, 1)) is not None:
        assert canonical_bytes({"n": None, "data": data}, dialect) == b'{"data":%s}' % at_once


@pytest.mark.parametrize("value", [1, -5, 2**63, 0.5, 1e9, "text \u20ac \u02ff", "1 + 1", [[{"a": "b"}]], {}, True])
def test_everyday_values_are_written_at_once(value):
    assert canonical_at_once({"x": value}, DIALECTS[-1], 1) is not None


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        (float("nan"), "$.data.x", "nan does not exist in JSON"),
        (float("-inf"), "$.data.x", "-inf does not exist in JSON"),
        (2**64, "$.data.x", "the integer 18446744073709551616 does not fit in 64 bits"),
        (2**255, "$.data.x", f"the integer {2**255} does not fit in 64 bits"),
        (2**256, "$.data.x", "the integer of 257 bits does not fit in 64 bits"),
        (1e20, "$.data.x", "the number 1e+20 has no fraction and does not fit in 64 bits"),
        ("\ud800", "$.data.x", "the text is not valid Unicode (a lone surrogate)"),
        ([[0, "\ud800"]], "$.data.x[0][1]", "the text is not valid Unicode (a lone surrogate)"),
        ({"a": {1: 2}}, "$.data.x.a", "the key 1 is not a string"),
        ({"a": {"\ud800": 2}}, "$.data.x.a", "the key '\\ud800' is not valid Unicode (a lone surrogate)"),
        (b"bytes", "$.data.x", "bytes is not a JSON value"),
        ({1, 2}, "$.data.x", "set is not a JSON value"),
    ],
)
def test_what_cannot_be_sent_is_named_with_what_is_wrong_with_it(value, path, problem):
    with pytest.raises(UnsendableValueError) as caught:
        canonical_bytes({"data": {"x": value}}, NEWEST)
    assert (caught.value.path, caught.value.problem) == (path, problem)


class Celsius(float):
    """A subclass of float, which orjson does not write."""


def test_what_only_the_encoder_refuses_is_reported_at_the_root_in_its_words():
    with pytest.raises(UnsendableValueError) as caught:
        canonical_bytes({"data": {"x": Celsius(0.5)}}, NEWEST)
    assert caught.value.path == "$"
    assert "Celsius" in caught.value.problem


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.version)
@pytest.mark.parametrize("needs_a_walk", [False, True])
def test_the_least_and_the_largest_integer_are_sent_as_they_are(dialect, needs_a_walk):
    numbers = [-(2**63), 2**64 - 1]
    message = {"a": numbers, "b": numbers[0], "c": numbers[1]} | ({"none": None} if needs_a_walk else {})
    assert json.loads(canonical_bytes(message, dialect)) == {"a": numbers, "b": numbers[0], "c": numbers[1]}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1e16, b"10000000000000000"),
        (2.0**63, b"9223372036854775808"),
        (-(2.0**63), b"-9223372036854775808"),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.version)
def test_a_large_number_without_a_fraction_is_written_as_an_integer(dialect, value, written):
    assert canonical_bytes({"x": [value, -1e16]}, dialect) == b'{"x":[%s,-10000000000000000]}' % written


def test_data_to_embed_is_the_object_that_the_message_would_have():
    for dialect in DIALECTS:
        data = {"b": None, "a": [None, 1.0, 0.5]}
        embedded = canonical_data(data, dialect)
        assert b'{"data":%s}' % embedded == canonical_bytes({"data": data}, dialect)
        message = {"x": 1, "data": orjson.Fragment(embedded)}
        assert canonical_bytes(message, dialect) == b'{"data":%s,"x":1}' % embedded
    with pytest.raises(UnsendableValueError) as caught:
        canonical_data({"x": [..., 1]}, NEWEST)
    assert caught.value.path == "$.data.x[0]"


@pytest.mark.parametrize("needs_a_walk", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.version)
def test_a_message_may_be_as_deep_as_its_orchestrator_accepts_and_no_deeper(dialect, needs_a_walk):
    value = None if needs_a_walk else 1
    for _ in range(dialect.max_nesting - 1):
        value = [value]
    assert canonical_bytes({"x": value}, dialect)
    limit = f"nested too deeply: orchestrators of version {dialect.version} accept {dialect.max_nesting} levels"
    with pytest.raises(UnsendableValueError) as caught:
        canonical_bytes({"x": [[value]]}, dialect)
    assert caught.value.problem == limit


def test_only_the_exact_text_of_a_signature_is_verified():
    signer = Signer("key")
    right = signer.sign(b"data")
    assert signer.verify(b"data", right)
    for wrong in (right.upper(), right[:-1], right + "0", "\u0435" + right[1:], right.encode(), None, 5):
        assert not signer.verify(b"data", wrong)


@pytest.mark.parametrize("security", [None, [], "x", {}, {"signature": None}], ids=str)
def test_a_message_without_a_signature_is_never_verified(security):
    assert not verify_message({"a": 1, "security": security}, Signer("key"), NEWEST)


def test_fields_that_are_ignored_are_not_signed():
    signer, message = Signer("key"), {"a": 1, "chain": [1]}
    signature = signer.sign(b'{"a":1}')
    sealed = {**message, "security": {"signature": signature, "signer_id": "o"}}
    assert verify_message(sealed, signer, NEWEST, frozenset({"chain"}))
    assert not verify_message(sealed, signer, NEWEST)


def test_a_signer_shows_nothing_of_its_key():
    assert repr(Signer("the key")) == "Signer(***)"
