"""Skills whose schemas have empty objects in them: no fields, fields of any type, defaults that are empty."""

import os
from dataclasses import dataclass, field
from typing import Any

from avtomatika_worker import TaskContext, Worker

worker = Worker()
PREFIX = os.environ["SKILL_PREFIX"]


@dataclass
class Nothing: ...


@dataclass
class Loose:
    anything: Any
    rows: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


@worker.skill(PREFIX + "loose")
def loose(params: Loose) -> Loose:
    return params


@worker.skill(PREFIX + "nothing", events={"bare": {}, "nothing": Nothing})
def nothing(params: Nothing, ctx: TaskContext) -> Nothing:
    ctx.send_event("bare", {"a": 1})
    return params


@worker.skill(PREFIX + "default")
def default(options: dict[str, Any] = {}) -> dict[str, Any]:  # noqa: B006 - the schema's default is what is tested
    return {"was": type(options).__name__}
