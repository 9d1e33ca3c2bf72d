"""What ``worker dev`` writes: examples that are valid, the log of tasks, and what a shutdown waits for."""

import enum
import logging
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from msgspec import Meta
from pydantic import BaseModel, Field, HttpUrl

from avtomatika_worker import Worker
from avtomatika_worker.cli.dev_log import DevLogFormatter, short_id
from avtomatika_worker.cli.dev_shutdown import waits_for
from avtomatika_worker.cli.examples import valid_example
from avtomatika_worker.devserver import JobRecord
from avtomatika_worker.skills.validation import Schema

JOB = "a3f1c0de-0000-4000-8000-000000000000"


# ------------------------------------------------------------------------------------------------------ examples


class Color(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: Annotated[int, Meta(gt=3, lt=5)]
    next: "Point | None" = None


class Shape(BaseModel):
    name: str = Field(min_length=30, max_length=31)
    link: HttpUrl
    points: list[int] = Field(min_length=3)
    kinds: set[Literal["a", "b"]] = Field(min_length=2)
    code: str = Field(pattern="^[A-Z]{3}$")
    sizes: dict[str, int] = Field(min_length=1)


@pytest.mark.parametrize(
    "annotation",
    [
        int,
        bool,
        str | int,
        Color,
        Point,
        Shape,
        list[Point] | int,
        Annotated[float, Meta(ge=0.2, le=0.4)],
        Annotated[int, Meta(ge=5, multiple_of=7)],
        Annotated[str, Meta(pattern="^#[0-9a-f]{6}$")],
        Annotated[list[Point], Meta(min_length=2)],
        tuple[int, str],
    ],
)
def test_the_example_satisfies_the_schema(annotation):
    worker = Worker(worker_type="test")

    def skill(given): ...

    skill.__annotations__["given"] = annotation
    worker.skill("skill")(skill)
    schema = worker.skills.contracts()[0].input_schema
    example = valid_example(schema)
    assert list(example) == ["given"]
    assert Schema(schema).problems(example) == ()


@pytest.mark.parametrize(
    ("schema", "possible"),
    [
        (None, True),
        ({}, True),
        ({"type": "object", "allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}]}, True),
        ({"type": "object", "minProperties": 2}, True),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, False),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "^q{7}z$"}}, "required": ["a"]}, False),
    ],
)
def test_there_is_a_valid_example_or_none(schema, possible):
    example = valid_example(schema)
    assert (example is not None) == possible
    assert example is None or Schema(schema or {}).problems(example) == ()


# ------------------------------------------------------------------------------------------------------ log


@pytest.fixture
def written():
    """Return what the formatter writes, without the time."""
    formatter = DevLogFormatter()

    def write(message, *args, level=logging.INFO, trace="", **extra):
        record = logging.LogRecord("avtomatika_worker.task", level, "", 1, message, args, None)
        record.__dict__.update(extra)
        record.exc_text = trace or None
        return formatter.format(record).partition(" ")[2]

    return write


def fails(written, message="it broke", job=JOB):
    facts = {"action": "task_failed", "skill": "resize", "status": "failure", "seconds": 0.0123, "code": "SOME_ERROR"}
    args = ("resize", 0.0123, "SOME_ERROR", message)
    return written("skill %s failed after %.3f s: %s: %s", *args, trace="Traceback\nLine", job_id=job, **facts)


def test_the_end_of_a_task_is_a_short_line(written):
    ends = {"action": "task_finished", "skill": "resize", "status": "success", "seconds": 0.3123, "job_id": JOB}
    assert written("…", **ends) in {"a3f1 resize ✓ 0.31 s", "a3f1 resize ok 0.31 s"}
    assert written("…", **{**ends, "status": "needs_review"}).endswith(" 0.31 s  needs_review")


def test_a_failure_is_written_once_and_its_repetition_is_a_line(written):
    first, second, third = (fails(written) for _ in range(3))
    assert first.endswith(" 0.01 s  SOME_ERROR: it broke\n    Traceback\n    Line")
    assert second.endswith("the same failure again (attempt 2)")
    assert third.endswith("the same failure again (attempt 3)")
    assert "Traceback" in fails(written, "something else")
    assert "Traceback" in fails(written, job=JOB.replace("a", "b"))


def test_other_lines_have_the_id_too_and_cannot_be_forged(written):
    assert written("hello\nworld", job_id=JOB) == "a3f1 worker.task  hello\n    world"
    assert written("hello", level=logging.WARNING, job_id="") == "     WARN worker.task  hello"
    assert written("a\x1b[2J", job_id="\x1b[2J") == "\\x1b[2J worker.task  a\\x1b[2J"
    assert short_id("my-own-name-of-a-job") == "my-own-name-"


# ------------------------------------------------------------------------------------------------------ shutdown


def test_a_shutdown_says_what_it_waits_for_and_what_comes_next():
    jobs = [
        JobRecord(number=each, job_id=JOB.replace("a3f1", f"a3f{each}"), skill="slow", params={}, submitted_at=0.0)
        for each in range(5)
    ]
    assert waits_for(jobs[:1], 30.0, 1).strip() == (
        "Waiting at most 30 s for 1 running task: a3f0 slow. Ctrl+C again cancels."
    )
    second = waits_for(jobs, 30.0, 2)
    assert "Cancelling 5 running tasks: a3f0 slow, a3f1 slow, a3f2 slow and 2 more." in second
    assert "ends the program at once" in second
    assert waits_for(jobs, 30.0, 3) == ""
