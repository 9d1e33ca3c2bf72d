"""What a generator's type hints say of its chunks and its result."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from msgspec import Meta
from pydantic import BaseModel

from avtomatika_worker import Final, SkillDefinitionError
from avtomatika_worker.execution.injection import injectables
from avtomatika_worker.skills.chunks import ChunkKind
from avtomatika_worker.skills.skill import Skill, define


@dataclass
class Row:
    n: int


class Model(BaseModel):
    n: int


async def text() -> AsyncIterator[str]:
    yield ""


async def named_text() -> AsyncGenerator[Annotated[str, Meta(max_length=9)], None]:
    yield ""


def raw() -> Iterator[bytes]:
    yield b""


def rows() -> Iterable[Row]:
    yield Row(1)


def returned() -> Generator[Row, None, dict[str, int]]:
    yield Row(1)
    return {"sum": 1}


async def final() -> AsyncIterator[str | Final[Row]]:
    yield Final(Row(1))


async def models() -> AsyncIterator[Model]:
    yield Model(n=1)


def iterator() -> Iterator[str]:
    return iter(["a"])


async def untyped():  # type: ignore[no-untyped-def]
    yield 1


def compiled(func: Callable[..., Any], **more: Any) -> Skill:
    return define(func, "f", **more).compile(injectables())


ROW = {"title": "Row", "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("func", "kind", "data", "result"),
    [
        (text, ChunkKind.TEXT, {"type": "string"}, {"type": "string"}),
        (named_text, ChunkKind.TEXT, {"type": "string"}, {"type": "string"}),
        (iterator, ChunkKind.TEXT, {"type": "string"}, {"type": "string"}),
        (raw, ChunkKind.BYTES, {"type": "string", "contentEncoding": "base64"}, {"type": "string", "format": "path"}),
        (rows, ChunkKind.ITEMS, {"type": "array", "items": ROW}, {"type": "array", "items": {"$ref": "#/$defs/Row"}}),
    ],
)
def test_the_yielded_type_determines_chunks_and_result(func: Any, kind: Any, data: Any, result: Any) -> None:
    skill = compiled(func)
    assert skill.stream is not None
    assert skill.stream.kind is kind
    assert skill.contract.events_schema is not None
    assert skill.contract.events_schema["chunk"]["properties"]["data"] == data
    assert skill.contract.output_schema is not None
    assert skill.contract.output_schema["properties"] == {"result": result}


def test_a_separate_result_is_returned_or_marked_as_final() -> None:
    assert compiled(returned).contract.output_schema == {
        "type": "object",
        "additionalProperties": {"type": "integer"},
    }
    assert compiled(final).contract.output_schema == ROW


def test_models_are_yielded_as_their_fields() -> None:
    stream = compiled(models).stream
    assert stream is not None
    assert stream.plain(Model(n=3)) == {"n": 3}


def test_without_a_type_anything_may_be_yielded() -> None:
    skill = compiled(untyped)
    assert (skill.stream and skill.stream.kind, skill.contract.output_schema) == (None, None)


def test_a_list_annotated_as_an_iterable_is_not_a_stream() -> None:
    def listed() -> Iterable[int]:
        return [1]

    assert compiled(listed).stream is None


def test_the_event_of_its_chunks_cannot_be_declared_twice() -> None:
    with pytest.raises(SkillDefinitionError, match="the event 'chunk' is declared by what a generator yields"):
        compiled(text, events={"chunk": {"type": "object"}})
