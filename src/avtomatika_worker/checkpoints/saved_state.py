"""A checkpoint's state: JSON or bytes, written before anything is stored and read by who loads it."""

from __future__ import annotations

import enum
import json
from functools import lru_cache
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.narrowing import as_any
from avtomatika_worker.skills.engines import by_engine
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.round_trips import are_written_alike, difference
from avtomatika_worker.skills.type_hints import UnsupportedTypeError, is_named_tuple, name_of
from avtomatika_worker.skills.validation import InvalidValue

_PLAIN: Final = frozenset({dict, list, str, int, float, bool, type(None)})
_NUMBERS: Final = frozenset({int, float})

MOST_STATE: Final = 16 * 1024 * 1024
"""Bytes of a state: what is larger belongs into a file."""


class StateMismatchError(Exception):
    """A state that is not of the type that was asked for."""


class Kind(enum.StrEnum):
    """What a state is."""

    JSON = "json"
    BYTES = "bytes"


class State(msgspec.Struct, frozen=True):
    """A written state."""

    kind: Kind
    content: bytes

    def read(self, of: Any = None) -> Any:
        """Return the state, made into the type ``of`` unless that is None. Raises `StateMismatchError`."""
        if self.kind is Kind.BYTES:
            if of in {None, bytes, Any, object}:
                return self.content
            raise StateMismatchError(f"it is bytes, and no {name_of(of)}")
        if of is bytes:
            raise StateMismatchError("it is JSON, and no bytes")
        try:
            value = json.loads(self.content)
        except (ValueError, RecursionError) as error:
            raise StateMismatchError(f"it is no JSON that can be read here: {error}") from None
        if of is None:
            return value
        try:
            return _converter(of)(value)
        except InvalidValue as error:
            raise StateMismatchError(f"it is no {name_of(of)}: {error}") from None


def written(state: object) -> State:
    """Write a state: bytes as they are, anything else as JSON, in which infinities and NaN are allowed.

    Models and dataclasses are written by their fields, NumPy's numbers and arrays as numbers and lists. Raises
    TypeError with the path of a value that is no JSON, and ValueError for a state that is too large.
    """
    if _is_bytes(state):
        return _bounded(Kind.BYTES, bytes(as_any(state)))
    return _bounded(Kind.JSON, json.dumps(plain(state), separators=(",", ":")).encode("ascii"))


def plain(state: object) -> Any:
    """Return a state as plain values. Raises TypeError with the path of one that is no JSON."""
    try:
        return to_plain(state)
    except UnsendableValueError as error:
        raise TypeError(f"the state of a checkpoint must be JSON or bytes: {error}") from error.__cause__


def check_type(of: Any) -> None:
    """Raise TypeError for a type that no state can be read as."""
    if of not in {None, bytes}:
        _converter(of)


def converted(value: Any, of: type) -> Any:
    """Make a plain value into the type ``of``; of JSON's own types, all numbers are one.

    Raises `StateMismatchError`, and TypeError for a type that JSON cannot be read as.
    """
    if of is type(None):
        return value
    if of in _PLAIN:
        if type(value) is not of and not {type(value), of} <= _NUMBERS:
            raise StateMismatchError(f"it is no {of.__name__}")
        return value
    try:
        return _converter(of)(value)
    except InvalidValue as error:
        raise StateMismatchError(f"it is no {name_of(of)}: {error}") from None


def check_restorable(value: Any, state: object, of: type) -> None:
    """Raise TypeError if `converted` would make another state of ``value``, the plain form of ``state``."""
    if of in _PLAIN and type(state) is of and are_written_alike(value, state):
        return
    try:
        found = difference(converted(value, of), state)
    except StateMismatchError as error:
        found = f"{error} any more"
    if found is not None:
        raise TypeError(
            f"the state of a loop would be another one after a restart: {found}; use lists, texts as keys and JSON's"
            " other types, or a dataclass that has the types of its fields, from the loop's beginning on"
        )


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


def _bounded(kind: Kind, content: bytes) -> State:
    if len(content) > MOST_STATE:
        raise ValueError(
            f"the state of a checkpoint has {len(content)} bytes, more than {MOST_STATE}: write it to a file, and save"
            " that with it (files=[…])"
        )
    return State(kind, content)


@lru_cache(64)
def _converter(of: Any) -> Any:
    if is_named_tuple(of):
        raise TypeError(f"a state cannot be read as {name_of(of)}: use a dataclass, a Struct or a model")
    try:
        return by_engine(of).convert
    except UnsupportedTypeError as error:
        raise TypeError(f"a state cannot be read as {name_of(of)}: {error}") from None
