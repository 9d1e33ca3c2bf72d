"""NumPy arrays in params: what is announced for a type hint, what is read, and what is refused with the reason."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from avtomatika_worker.skills.schema import infer_fields
from avtomatika_worker.skills.type_hints import MISSING, UnsupportedTypeError
from avtomatika_worker.skills.validation import InvalidValue

np = pytest.importorskip("numpy")

from numpy.typing import NDArray  # noqa: E402 - only where there is NumPy


def contract(hint):
    return infer_fields("skill", {"x": (hint, MISSING)})


def announced(hint):
    schema = contract(hint).schema["properties"]["x"]
    schema.pop("description", None)
    return schema


def shaped(dtype, *axes):
    return np.ndarray[tuple.__class_getitem__(axes), np.dtype[dtype]]


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (NDArray[np.float32], {"type": ["array", "number"]}),
        (NDArray[np.int64], {"type": ["array", "integer"]}),
        (NDArray[np.uint8], {"type": ["array", "integer"], "minimum": 0, "maximum": 255}),
        (NDArray[np.bool_], {"type": ["array", "boolean"]}),
        (NDArray[Any], {"type": ["array", "number"]}),
        (np.ndarray, {"type": ["array", "number"]}),
        (shaped(np.float64), {"type": "number"}),
        (shaped(np.float64, int), {"type": "array", "items": {"type": "number"}}),
        (
            shaped(np.int64, int, Literal[2]),
            {
                "type": "array",
                "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            },
        ),
        (list[shaped(np.float64, int)], {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}),
    ],
    ids=str,
)
def test_nested_lists_are_announced(hint, schema):
    assert announced(hint) == schema


@pytest.mark.parametrize(
    ("hint", "value", "dtype", "shape"),
    [
        (NDArray[np.float32], [[1, 2.5], [3, 4]], "float32", (2, 2)),
        (NDArray[np.float32], 2, "float32", ()),
        (NDArray[np.float32], [], "float32", (0,)),
        (NDArray[np.float32], [[], []], "float32", (2, 0)),
        (NDArray[np.uint64], [2**64 - 1, 0], "uint64", (2,)),
        (NDArray[np.int8], [-128, 127.0], "int8", (2,)),
        (NDArray[np.bool_], [True, False], "bool", (2,)),
        (NDArray[np.floating[Any]], [1], "float64", (1,)),
        (NDArray[np.integer[Any]], [1], "int64", (1,)),
        (np.ndarray, [1], "float64", (1,)),
        (shaped(np.float64, int, Literal[2]), [[1, 2]], "float64", (1, 2)),
        (shaped(np.float64, int, Literal[2]), [], "float64", (0, 2)),
    ],
    ids=str,
)
def test_nested_lists_become_an_array(hint, value, dtype, shape):
    array = contract(hint).convert({"x": value})["x"]
    assert (array.dtype.name, array.shape) == (dtype, shape)
    assert array.tolist() == value


def test_numbers_without_a_fraction_are_integers_wherever_an_array_is():
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", n=int)
    convert = infer_fields("skill", {"x": (NDArray[np.int64], MISSING), "of": (model, MISSING)}).convert
    assert convert({"x": [1.0, 2**63 - 1], "of": {"n": 1.0}})["x"].tolist() == [1, 2**63 - 1]
    with pytest.raises(InvalidValue, match=r"Expected `int`, got `float`, at \[1\]"):
        convert({"x": [1.0, 1.5], "of": {"n": 1.0}})


def deep(levels):
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("hint", "value", "problem"),
    [
        (NDArray[np.float32], "1", "$.x: expected number or array, got string"),
        (NDArray[np.float32], [1, "a"], "$.x: Expected `float`, got `str`, at [1]"),
        (NDArray[np.float32], [[1], 2], "$.x: Expected `array`, got `int`, at [1]"),
        (NDArray[np.float32], [True], "$.x: Expected `float`, got `bool`, at [0]"),
        (NDArray[np.float32], [None], "$.x: Expected `float`, got `null`, at [0]"),
        (NDArray[np.float32], [[1, 2], [3]], "$.x: its lists must be of equal lengths, and have 1 and 2 (axis 1)"),
        (NDArray[np.float16], [1e6], "$.x: a number is out of the range of float16"),
        (NDArray[np.float32], [10**400], "$.x: Number out of range, at [0]"),
        (NDArray[np.uint8], [256], "$.x: a number is out of the range of uint8, 0 to 255"),
        (NDArray[np.int64], [2**63], "$.x: a number is out of the range of int64"),
        (NDArray[np.int64], [1.5], "$.x: Expected `int`, got `float`, at [0]"),
        (NDArray[np.bool_], [1], "$.x: Expected `bool`, got `int`, at [0]"),
        (NDArray[np.float32], deep(40), "$.x: an array has at most 32 axes"),
        (shaped(np.float64, int, Literal[2]), [[1, 2, 3]], "$.x[0]: [1,2,3] has more than 2 items"),
        (shaped(np.float64, int, Literal[2]), [[1], [2]], "$.x[0]: [1] has less than 2 items"),
        (shaped(np.float64, int), [[1]], "$.x[0]: expected number, got array"),
    ],
    ids=str,
)
def test_an_invalid_array_is_refused_with_its_path(hint, value, problem):
    with pytest.raises(InvalidValue) as caught:
        contract(hint).convert({"x": value})
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "dtype", [np.str_, np.object_, np.complex64, np.datetime64, np.longdouble, np.float16 | np.float32]
)
def test_arrays_of_types_that_json_lacks_are_refused_at_the_definition(dtype):
    with pytest.raises(UnsupportedTypeError, match="are no numbers that JSON has"):
        contract(np.ndarray[Any, np.dtype[dtype]])
