"""NumPy arrays in params: a number, or nested lists of numbers, becomes an array of the type in the hint.

NumPy is not required: who writes ``NDArray[…]`` in a hint has imported it.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

from avtomatika_worker.narrowing import as_any, is_list
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.type_hints import UnsupportedTypeError, list_instead, stands_for, union_of
from avtomatika_worker.skills.validation import integral

_DEEPEST: Final = 32
"""Axes that every version of NumPy supports."""
_JSON_NUMBERS: Final = {"f": ("number", float), "i": ("integer", int), "u": ("integer", int), "b": ("boolean", bool)}
_STANDS_FOR: Final = {"integer": "int64", "signedinteger": "int64", "unsignedinteger": "uint64"}
_ABSTRACT: Final = frozenset({"generic", "number", "inexact", "floating"})
_LONGEST: Final = 8
"""Bytes of a number: of a ``longdouble``, JSON would have a part."""

_SAFE_BITS: Final = 32
"""Bounds of larger integers are not announced: readers of JSON may take them for floats."""


def is_array(hint: Any) -> bool:
    """Whether a type hint is ``np.ndarray``, ``NDArray[…]`` among others."""
    ndarray = getattr(sys.modules.get("numpy"), "ndarray", None)
    return ndarray is not None and (get_origin(hint) or hint) is ndarray


def with_own_arrays(value: object, levels: int = 3) -> Any:
    """Return a value with copies of the arrays in its lists, tuples and dicts: they may be views of one that changes.

    ``levels``: how deep it looks. A value may contain itself.
    """
    kind: Any = type(value)
    if is_array(kind):
        return as_any(value).copy()
    if levels == 0 or kind not in {dict, list, tuple}:
        return as_any(value)
    if kind is dict:
        return {key: with_own_arrays(each, levels - 1) for key, each in as_any(value).items()}
    return as_any(kind)(with_own_arrays(each, levels - 1) for each in as_any(value))


@dataclass(frozen=True, slots=True)
class ArrayType:
    """An array's type. ``dtype`` is NumPy's; ``shape`` has None for any length, and is None for any number of axes."""

    dtype: Any
    shape: tuple[int | None, ...] | None

    @property
    def schema(self) -> JsonSchema:
        """Return the JSON Schema of the nested lists."""
        kind, _ = _JSON_NUMBERS[self.dtype.kind]
        number: JsonSchema = {"type": kind}
        if self.dtype.kind in "iu" and self.dtype.itemsize * 8 <= _SAFE_BITS:
            low, high = self._bounds
            number.update(minimum=low, maximum=high)
        if self.shape is None:
            return {**number, "type": ["array", kind], "description": f"nested arrays of equal lengths, of {kind}s"}
        schema = number
        for length in reversed(self.shape):
            fixed = {} if length is None else {"minItems": length, "maxItems": length}
            schema = {"type": "array", "items": schema, **fixed}
        return schema

    @property
    def _bounds(self) -> tuple[int, int]:
        info: Any = sys.modules["numpy"].iinfo(self.dtype)
        return int(info.min), int(info.max)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let pydantic read such arrays, too: it does not know any."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        """Announce them."""
        return self.schema

    def read(self, value: object) -> Any:
        """Return nested lists as an array. Raises ValueError that says what is wrong, and where."""
        depth = _depth(value) if self.shape is None else len(self.shape)
        if depth > _DEEPEST:
            raise ValueError(f"an array has at most {_DEEPEST} axes")
        nested: Any = _JSON_NUMBERS[self.dtype.kind][1]
        for _ in range(depth):
            nested = list[nested]
        plain = self._checked(value, nested)
        shape = self._fitting(_shape(plain, depth))
        return self._made(plain).reshape(shape)

    def _checked(self, value: object, nested: Any) -> Any:
        try:
            return msgspec.convert(value, nested)
        except msgspec.ValidationError as error:
            if self.dtype.kind in "iu" and (whole := integral(value)) is not value:
                return self._checked(whole, nested)
            problem, _, path = str(error).partition(" - at `$")
            raise ValueError(f"{problem}, at {path.rstrip('`')}" if path else problem) from None

    def _fitting(self, shape: list[int]) -> list[int]:
        """Return the shape of nested lists. Raises ValueError if it is not that of the array."""
        if self.shape is None:
            return shape
        if 0 in shape:  # an empty list does not show the lengths of the lists in it
            inside = shape.index(0) + 1
            shape = [*shape[:inside], *(each or 0 for each in self.shape[inside:])]
        if any(want not in (None, got) for want, got in zip(self.shape, shape, strict=True)):
            wanted = ", ".join("any" if each is None else str(each) for each in self.shape)
            raise ValueError(f"expected an array of shape ({wanted}), got ({', '.join(map(str, shape))})")
        return shape

    def _made(self, plain: Any) -> Any:
        numpy: Any = sys.modules["numpy"]
        if self.dtype.kind not in "iu":
            with numpy.errstate(over="ignore"):  # looked for below
                array = numpy.array(plain, dtype=self.dtype)
            if not numpy.isfinite(array).all():
                raise ValueError(f"a number is out of the range of {self.dtype}")
            return array
        try:
            whole = numpy.array(plain, dtype=numpy.int64)
        except OverflowError:
            whole = numpy.array(plain, dtype=object)
        low, high = self._bounds
        if whole.size and not (low <= whole.min() and whole.max() <= high):
            raise ValueError(f"a number is out of the range of {self.dtype}, {low} to {high}")
        return whole.astype(self.dtype)


def array_type(hint: Any) -> ArrayType:
    """Return what a type hint says about an array. Raises `UnsupportedTypeError` for items that are no numbers."""
    args = get_args(hint)
    return ArrayType(_dtype(hint, args[1] if len(args) > 1 else Any), _shape_hint(args[0]) if args else None)


def for_pydantic_with_arrays(hint: Any) -> Any:
    """Return a type hint in which pydantic knows the arrays, and iterables are lists. Raises `UnsupportedTypeError`."""
    if (listed := list_instead(hint)) is not hint:
        return for_pydantic_with_arrays(listed)
    if is_array(array := _named(hint)):
        return Annotated[Any, array_type(array)]
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[(for_pydantic_with_arrays(args[0]), *args[1:])]
    changed = tuple(map(for_pydantic_with_arrays, args))
    if all(new is old for new, old in zip(changed, args, strict=True)):
        return hint
    return union_of(changed) if origin in {Union, types.UnionType} else as_any(origin)[changed]


def _named(hint: Any) -> Any:
    """Return the type behind a ``type`` statement: what ``NDArray`` is from NumPy 2.5 on."""
    while below := stands_for(hint):
        hint = below[0]
    return hint


def without_first_axis(hint: Any) -> Any:
    """Return the type hint of the items of an array. Raises `UnsupportedTypeError` for one that has none."""
    known = array_type(hint)
    if known.shape is None:
        return hint
    if not known.shape:
        raise UnsupportedTypeError(f"{hint} has no axis")
    if known.shape[0] is not None:
        raise UnsupportedTypeError(f"the first axis of {hint} is the batch, whose size differs: write int")
    shape, dtype = get_args(hint)
    rest: Any = get_args(shape)[1:]
    array: Any = get_origin(hint)
    return array[tuple.__class_getitem__(rest), dtype]


def _dtype(hint: Any, given: Any) -> Any:
    """Return the type of an array's numbers: where it is left open, that of a float or an int in NumPy."""
    numpy: Any = sys.modules["numpy"]
    kind = (get_args(given) or (Any,))[0] if given is not Any else Any
    kind = get_origin(kind) or kind
    name = "generic" if kind is Any else getattr(kind, "__name__", "")
    if kind is Any or getattr(kind, "__module__", "") == "numpy":
        name = "float64" if name in _ABSTRACT else _STANDS_FOR.get(name, name)
        found = numpy.dtype(name) if name in numpy.sctypeDict else None
    else:
        found = numpy.dtype(kind) if kind in (float, int, bool) else None
    if found is None or found.kind not in _JSON_NUMBERS or found.itemsize > _LONGEST:
        raise UnsupportedTypeError(f"the items of {hint} are no numbers that JSON has: use floats, integers or bools")
    return found


def _shape_hint(hint: Any) -> tuple[int | None, ...] | None:
    """Return an array's shape, or None where the hint does not say how many axes it has."""
    axes = get_args(hint)
    if get_origin(hint) is not tuple or Ellipsis in axes:
        return None
    return tuple(get_args(each)[0] if get_origin(each) is Literal else None for each in axes)


def _depth(value: object) -> int:
    """Return the number of axes of nested lists, by their first items."""
    depth = 0
    while is_list(value):
        depth, value = depth + 1, value[0] if value else None
    return depth


def _shape(value: Any, depth: int) -> list[int]:
    """Return the lengths of nested lists. Raises ValueError where they differ."""
    shape: list[int] = []
    level = [value]
    for axis in range(depth):
        lengths = sorted({len(each) for each in level})
        if len(lengths) > 1:
            raise ValueError(
                f"its lists must be of equal lengths, and have {lengths[0]} and {lengths[1]} (axis {axis})"
            )
        shape.append(lengths[0] if lengths else 0)
        if axis + 1 < depth:
            level = [item for each in level for item in each]
    return shape
