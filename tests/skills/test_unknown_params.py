"""Params that a skill does not have: a warning, once."""

from dataclasses import dataclass

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.testing import WorkerHarness


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if getattr(each, "action", "") == "unknown_param"]


@dataclass
class Size:
    width: int
    height: int = 1


class Model(BaseModel):
    width: int


def separate(width: int, height: int = 1): ...


def dataclass_(params: Size): ...


def model(params: Model): ...


def with_context(width: int, ctx: TaskContext): ...


@pytest.mark.parametrize("skill", [separate, dataclass_, model, with_context])
async def test_an_unknown_param_is_reported_once_with_a_suggestion(skill, caplog):
    worker = Worker(worker_type="test")
    worker.skill("size")(skill)
    async with WorkerHarness(worker) as h:
        for _ in range(2):
            assert (await h.run("size", {"width": 1, "widht": 2})).ok
        assert (await h.run("size", {"width": 1, "a\x1b[2J": 2})).ok
    first, second = warnings(caplog)
    assert first == "skill size has no param 'widht'; did you mean 'width'?"
    assert second.startswith(r"skill size has no param 'a\x1b[2J'; its params: ")


class Aliased(BaseModel):
    width: int = Field(validation_alias=AliasChoices("w", "breadth"))


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    width: int = Field(alias="w")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Reads(BaseModel):
    width: int

    @model_validator(mode="before")
    @classmethod
    def old(cls, data):
        return {"width": data["breadth"]} if "breadth" in data else data


def anything(params: dict): ...


def aliased(params: Aliased): ...


def by_name(params: ByName): ...


def open_(params: Open): ...


def reads(params: Reads): ...


@pytest.mark.parametrize(
    ("skill", "params"),
    [
        (anything, {"widht": 1}),
        (aliased, {"breadth": 1}),
        (by_name, {"width": 1}),
        (open_, {"widht": 1}),
        (reads, {"breadth": 1}),
    ],
)
async def test_params_that_may_be_read_are_not_reported(skill, params, caplog):
    worker = Worker(worker_type="test")
    worker.skill("size")(skill)
    async with WorkerHarness(worker) as h:
        assert (await h.run("size", params)).ok
    assert warnings(caplog) == []


async def test_a_written_schema_decides_where_nothing_else_reads(caplog):
    worker = Worker(worker_type="test")
    schema = {"type": "object", "properties": {"width": {"type": "integer"}}}
    worker.skill("raw", input_schema=schema)(lambda params: params)  # the function reads what it likes
    worker.skill("open", input_schema={**schema, "additionalProperties": True})(separate)
    worker.skill("closed", input_schema={**schema, "additionalProperties": False})(separate)
    async with WorkerHarness(worker) as h:
        assert (await h.run("raw", {"width": 1, "widht": 2})).ok
        assert (await h.run("open", {"width": 1, "widht": 2})).ok
        assert (await h.run("closed", {"width": 1, "widht": 2})).error.code == "INVALID_INPUT_ERROR"
    assert warnings(caplog) == []


async def test_any_number_of_names_leaves_a_bounded_number_of_warnings(caplog):
    worker = Worker(worker_type="test")
    worker.skill("size")(separate)
    async with WorkerHarness(worker) as h:
        for start in (0, 150):
            assert (await h.run("size", {"width": 1, **{f"x{each}" * 100: 0 for each in range(start, start + 150)}})).ok
    assert len(warnings(caplog)) == 100
    assert max(map(len, warnings(caplog))) < 1000
