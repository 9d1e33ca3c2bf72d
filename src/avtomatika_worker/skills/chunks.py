"""Skills that stream: what they yield, as the declared event ``chunk``, and what their result is made of."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeGuard, TypeVar, get_args, get_origin

import msgspec

from avtomatika_worker.errors import ContractViolationError, UnsendableValueError
from avtomatika_worker.skills.announced import announceable
from avtomatika_worker.skills.binding import type_hints, wrapped
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.engines import by_engine
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.schema import OutputContract, infer_output
from avtomatika_worker.skills.type_hints import MISSING, members_of, says_nothing, stands_for, union_of
from avtomatika_worker.skills.validation import Schema, describe, without_nulls

T = TypeVar("T")

CHUNK_EVENT: typing.Final = "chunk"
"""The event that carries what a skill yields: ``attempt``, ``index``, ``count`` and ``data``."""

_ITERATORS: typing.Final = frozenset(
    {
        collections.abc.AsyncGenerator,
        collections.abc.AsyncIterable,
        collections.abc.AsyncIterator,
        collections.abc.Generator,
        collections.abc.Iterator,
    }
)
_OF_GENERATORS: typing.Final = _ITERATORS | {collections.abc.Iterable}
"""A plain function that returns an ``Iterable`` returns a list, more often than not; a generator never does."""


@dataclass(frozen=True, slots=True)
class Final(Generic[T]):
    """The last thing that a generator yields: ``value`` is the task's result, instead of what was yielded before.

    The generator is closed then, as by ``return``. In annotations it stands beside the type of the chunks:
    ``AsyncIterator[str | Final[Answer]]``.
    """

    value: T


def is_final(value: object) -> TypeGuard[Final[Any]]:
    """Whether a value that was yielded, or returned, is the result."""
    return isinstance(value, Final)


class ChunkKind(enum.Enum):
    """How chunks are put together."""

    TEXT = "text"
    BYTES = "bytes"
    ITEMS = "items"

    @classmethod
    def of(cls, value: object) -> ChunkKind:
        """Return the kind of a value that was yielded where no type hint says which it is."""
        if isinstance(value, str):
            return cls.TEXT
        return cls.BYTES if isinstance(value, bytes | bytearray | memoryview) else cls.ITEMS


_DATA_OF: typing.Final[dict[ChunkKind | None, JsonSchema]] = {
    ChunkKind.TEXT: {"type": "string"},
    ChunkKind.BYTES: {"type": "string", "contentEncoding": "base64"},
    None: {},
}
_RESULT_OF: typing.Final[dict[ChunkKind | None, Any]] = {ChunkKind.TEXT: str, ChunkKind.BYTES: Path}


class StreamContract(msgspec.Struct, frozen=True):
    """What a skill yields. ``kind`` is None where the first value decides; ``result`` is the type of its result."""

    kind: ChunkKind | None
    schema: JsonSchema
    result: Any
    collected: bool = True
    """Whether the result is put together from what was yielded, and plain by then."""
    _write: Callable[[object], Any] = to_plain
    _check: Schema | None = None

    def plain(self, value: object) -> Any:
        """Return an item as plain values that fit the type. Raises `ContractViolationError`."""
        try:
            plain = self._write(value)
        except UnsendableValueError as error:
            raise ContractViolationError(
                f"the chunk cannot be sent: {error.path}: {error.problem}", {"path": error.path}
            ) from error
        if self._check is not None and (problems := self._check.problems(without_nulls(plain))):
            raise ContractViolationError(
                f"the chunk violates its schema: {describe(problems, 'data')}",
                {"errors": [{"path": each.path, "problem": each.problem} for each in problems]},
            )
        return plain


def stream_contract(skill: str, func: Callable[..., Any], localns: dict[str, Any]) -> StreamContract | None:
    """Return what a function yields; None when it is no generator and returns no iterator.

    Raises `UnsupportedTypeError` for a type that has no schema.
    """
    hint = type_hints(skill, func, localns).get("return", MISSING)
    origin = get_origin(hint) or hint
    if origin not in _ITERATORS and not any(map(_is_generator, wrapped(func))):
        return None
    args = get_args(hint) if origin in _OF_GENERATORS else ()
    returns = args[2:]  # Generator[yields, sent, returns]
    members = members_of(args[0]) if args else ()
    finals = [each for each in members if (get_origin(each) or each) is Final]
    final = [arg for each in finals for arg in get_args(each)]
    if not final and returns and not says_nothing(returns[0]):
        final = list(returns)
    chunks = _union([each for each in members if each not in finals])
    return _contract(chunks, _union(final), collected=not finals and not final)


def _contract(yields: Any, final: Any, *, collected: bool) -> StreamContract:
    kind = _kind_of(yields)
    write: Callable[[object], Any] | None = None
    check, data, result = None, _DATA_OF.get(kind), _RESULT_OF.get(kind, MISSING)
    if data is None:
        item = by_engine(yields, output=True)
        write, check = item.write, Schema(item.schema) if item.schema else None
        data, result = {"type": "array", "items": item.schema}, list[yields]
    return StreamContract(kind, _event(data), result if collected else final, collected, write or to_plain, check)


def _event(data: JsonSchema) -> JsonSchema:
    inner = dict(data.get("items", {}))
    definitions = inner.pop("$defs", None)
    properties: JsonSchema = {
        "attempt": {"type": "integer"},
        "index": {"type": "integer", "minimum": 0},
        "count": {"type": "integer", "minimum": 1},
        "data": {**data, "items": inner} if "items" in data else data,
    }
    event: JsonSchema = {"type": "object", "properties": properties, "required": ["attempt", "index", "count", "data"]}
    event, _ = announceable({**event, "$defs": definitions} if definitions else event)
    return event


def output_of(stream: StreamContract) -> OutputContract | None:
    """Return the contract of a stream's result. Raises `UnsupportedTypeError`."""
    output = None if says_nothing(stream.result) else infer_output(stream.result)
    return msgspec.structs.replace(output, write=to_plain) if output is not None and stream.collected else output


def _kind_of(yields: Any) -> ChunkKind | None:
    if says_nothing(yields):
        return ChunkKind.ITEMS if _is_mapping(yields) else None
    bare = yields
    while True:
        if get_origin(bare) is Annotated:
            bare = get_args(bare)[0]
        elif below := stands_for(bare):
            bare = below[0]
        else:
            break
    if bare is str:
        return ChunkKind.TEXT
    return ChunkKind.BYTES if bare in {bytes, bytearray, memoryview} else ChunkKind.ITEMS


def _is_mapping(hint: Any) -> bool:
    return (get_origin(hint) or hint) in {dict, collections.abc.Mapping}


def _union(members: list[Any]) -> Any:
    if not members:
        return MISSING
    return members[0] if len(members) == 1 else union_of(tuple(members))


def _is_generator(func: Any) -> bool:
    return inspect.isasyncgenfunction(func) or inspect.isgeneratorfunction(func)
