"""Skills that give back what they were given: on the main loop, in a thread, and in a process."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
from collections.abc import Callable
from dataclasses import KW_ONLY, InitVar, asdict, dataclass, field
from ipaddress import IPv4Address
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, PlainSerializer, field_serializer, field_validator

from avtomatika_worker import Worker


class Color(enum.Enum):
    RED = "red"


@dataclass
class Border:
    width: int = 1
    color: Color = Color.RED


@dataclass
class Resize:
    url: str
    note: str | None
    width: int = 100
    _: KW_ONLY
    border: Border = field(default_factory=Border)
    factor: decimal.Decimal = decimal.Decimal("1.5")
    seed: InitVar[int] = 3
    area: int = field(init=False)
    unit: str = field(init=False, default="px")

    def __post_init__(self, seed: int) -> None:
        self.area = self.width * seed


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: dt.datetime
    tags: set[str]
    note: str | None
    name: str = Field(default="x", validation_alias="came", serialization_alias="goes")


@dataclass
class Page:
    url: HttpUrl
    ip: IPv4Address
    euros: Annotated[float, PlainSerializer(lambda value: f"{value:.2f}", return_type=str)] = 1.5


class Touchy(BaseModel):
    items: list[int]

    @field_validator("items")
    @classmethod
    def check(cls, items: list[int]) -> list[int]:
        if 1 in items:
            raise KeyError("one")
        return items

    @field_serializer("items")
    def write(self, items: list[int]) -> list[int]:
        if 2 in items:
            raise KeyError("two")
        return items


def resize(params: Resize) -> Resize:
    return params


def looked_at(params: Resize) -> dict[str, Any]:
    return {"vars": vars(params), "asdict": asdict(params)}


def strict(params: Strict) -> Strict:
    return params


def page(params: Page) -> Page:
    return params


def inside(params: Page) -> dict[str, Any]:
    return {"url": params.url, "strict": Strict(at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC), tags={"a"}, note=None)}


def touchy(params: Touchy) -> Touchy:
    return params


def search(term: str, *, api_key: str) -> dict[str, str]:
    return {"term": term, "used": api_key}


async def resize_here(params: Resize) -> Resize:
    return resize(params)


async def looked_at_here(params: Resize) -> dict[str, Any]:
    return looked_at(params)


async def strict_here(params: Strict) -> Strict:
    return strict(params)


async def page_here(params: Page) -> Page:
    return page(params)


async def inside_here(params: Page) -> dict[str, Any]:
    return inside(params)


async def touchy_here(params: Touchy) -> Touchy:
    return touchy(params)


async def search_here(term: str, *, api_key: str) -> dict[str, str]:
    return search(term, api_key=api_key)


SKILLS: list[Callable[..., Any]] = [resize, looked_at, strict, page, inside, touchy]
HERE: list[Callable[..., Any]] = [resize_here, looked_at_here, strict_here, page_here, inside_here, touchy_here]


def register(worker: Worker) -> None:
    for func, here in zip(SKILLS, HERE, strict=True):
        worker.skill(f"{func.__name__}-thread")(func)
        worker.skill(f"{func.__name__}-process", executor="process")(func)
        worker.skill(f"{func.__name__}-loop")(here)
    worker.skill("search-thread")(functools.partial(search, api_key="S3CRET"))
    worker.skill("search-process", executor="process")(functools.partial(search, api_key="S3CRET"))
    worker.skill("search-loop")(functools.partial(search_here, api_key="S3CRET"))
