"""What a batched function may look like, what it announces, and what is refused with a reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import pytest

from avtomatika_worker import Batch, SkillDefinitionError, TaskContext, TaskFiles
from avtomatika_worker.execution.injection import injectables
from avtomatika_worker.skills.skill import define


class Text(msgspec.Struct):
    text: str
    model: str = "small"


class Vector(NamedTuple):
    values: list[float]


class Model:
    """A resource."""


def compiled(func, batch=None, **options):
    known = injectables()
    known.register(Model, lambda source: MODEL)
    return define(func, batch=batch or Batch(), **options).compile(known)


MODEL = Model()


def rows(params: list[Text], model: Model, ctxs: list[TaskContext]) -> list[Vector]: ...


def columns(text: list[str], model: Sequence[str | None]) -> list[Vector | Exception]: ...


async def annotated(params: Annotated[list[Text], "of all"], task_id: list[str], files: list[TaskFiles]) -> Any: ...


def untyped(params: list) -> list: ...


def test_the_contract_is_that_of_one_task():
    contract = compiled(rows).contract
    assert contract.input_schema["properties"].keys() == {"text", "model"}
    assert contract.output_schema["properties"]["values"]["type"] == "array"
    contract = compiled(columns).contract
    assert contract.input_schema["properties"]["text"] == {"type": "string"}
    assert contract.output_schema["properties"].keys() == {"values"}
    assert compiled(annotated).contract.input_schema == compiled(rows).contract.input_schema
    assert compiled(untyped).contract.input_schema is None


def test_the_arguments_are_lists_but_for_resources():
    skill = compiled(rows)

    class Source:
        def __init__(self, params):
            self.params = params
            self.ctx = f"context of {params['text']}"

    sources = [Source({"text": "a"}), Source({"text": "b", "model": "large"})]
    merged = skill.merged([skill.arguments(each, skill.convert(each.params)) for each in sources])
    assert merged["params"] == [Text("a"), Text("b", "large")]
    assert merged["model"] is MODEL
    assert merged["ctxs"] == ["context of a", "context of b"]


def single(params: Text) -> list[Vector]: ...


def one_context(params: list[Text], ctx: TaskContext) -> list[Vector]: ...


def bare(params): ...


def no_list(model: Model) -> list[int]: ...


def no_items(params: list[Text]) -> Vector: ...


def defaulted(text: list[str], model: list[str] = []) -> list[int]: ...  # noqa: B006


def by_name(params: list[Text], task_id: str) -> list[int]: ...


def anything(params: list[Text], **rest: Any) -> list[int]: ...


def generator(params: list[Text]) -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("func", "problem"),
    [
        (
            single,
            "the argument 'params' of a batched skill gets a list with an item for each task, and has the type hint",
        ),
        (one_context, "the argument 'ctx' of a batched skill gets a list"),
        (bare, "and has no type hint: write list[…]"),
        (no_list, "needs an argument with an item for each task"),
        (no_items, "a batched skill returns a list with an item for each task, not Vector: write -> list[…]"),
        (defaulted, "the argument 'model' of a batched skill is a list, for which there is no default"),
        (by_name, "the argument 'task_id' of a batched skill gets a list"),
        (anything, "cannot have the argument **rest"),
        (generator, "a batched skill cannot yield"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_function_that_cannot_be_batched_is_refused_with_the_reason(func, problem):
    with pytest.raises(SkillDefinitionError) as caught:
        compiled(func)
    assert problem in str(caught.value)
    assert func.__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"batch": 16}, "batch must be a Batch, such as Batch(max_size=16), not 16"),
        ({"batch": Batch(max_size=0)}, "the max_size of its batch must be a positive integer, not 0"),
        ({"batch": Batch(max_size=2.5)}, "the max_size of its batch must be a positive integer, not 2.5"),
        ({"batch": Batch(max_size=True)}, "the max_size of its batch must be a positive integer, not True"),
        ({"batch": Batch(max_wait=-1)}, "the max_wait of its batch must be a number of seconds, not -1"),
        ({"batch": Batch(max_wait=math.inf)}, "the max_wait of its batch must be a number of seconds, not inf"),
        ({"batch": Batch(key="model")}, "the key of its batch must be a function of a task's params, not 'model'"),
        ({"batch": Batch(cost=len)}, "cost and max_cost of its batch belong together"),
        ({"batch": Batch(max_cost=3)}, "cost and max_cost of its batch belong together"),
        ({"batch": Batch(cost=len, max_cost=math.nan)}, "the max_cost of its batch must be a positive number, not nan"),
        ({"batch": Batch(), "max_concurrent": 8}, "max_concurrent=8 would never let its batch of max_size=16 be full"),
        (
            {"batch": Batch(), "prefetch": 2},
            "the tasks of its next batch here, and their files, as it is: leave prefetch",
        ),
        ({"batch_size": 8}, "there is no option 'batch_size'; did you mean 'batch'?"),
    ],
    ids=str,
)
def test_an_invalid_option_is_refused_with_the_reason(options, problem):
    with pytest.raises(SkillDefinitionError) as caught:
        define(untyped, **options)
    assert problem in str(caught.value)
