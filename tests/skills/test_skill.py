"""The arguments of the decorator, the contract made of them, and whether it is kept."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypedDict

import pydantic
import pytest

from avtomatika_worker.errors import ContractViolationError, SkillDefinitionError
from avtomatika_worker.skills.binding import Injectables
from avtomatika_worker.skills.run_options import SkillOptions
from avtomatika_worker.skills.skill import Skill, define


class Alert(pydantic.BaseModel):
    level: int


class Thumbnail(TypedDict):
    width: int


def compiled(func: Callable[..., Any], name: str | None = None, **options: Any) -> Skill:
    return define(func, name, **options).compile(Injectables())


def resize(width: int) -> Thumbnail:
    """Make a picture
    smaller.

    At great length.
    """
    return {"width": width}


async def later(width: int) -> None: ...


def test_a_contract_is_read_from_the_function() -> None:
    contract = compiled(resize).contract
    assert (contract.name, contract.type, contract.description) == ("resize", "resize", "Make a picture smaller.")
    assert (contract.input_schema or {})["required"] == ["width"]
    assert (contract.output_schema or {})["required"] == ["width"]
    assert contract.events_schema is None
    assert contract.version is None


def test_explicit_arguments_win() -> None:
    contract = compiled(
        resize, "scale", type="image", description="", version="2.1", output_schema={"type": "object"},
        output_statuses=["partial"], events={"alert": Alert}, price=0.5, category="AI",
    ).contract  # fmt: skip
    assert (contract.name, contract.type, contract.description, contract.version) == ("scale", "image", "", "2.1")
    assert contract.output_schema == {"type": "object"}
    assert contract.output_statuses == ("partial",)
    assert (contract.events_schema or {})["alert"]["required"] == ["level"]
    assert contract.properties == {"price": 0.5, "category": "AI"}


def test_the_version_is_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "__version__", "3.4", raising=False)
    assert compiled(resize).contract.version == "3.4"
    assert compiled(functools.partial(resize)).contract.version == "3.4"
    monkeypatch.setattr(sys.modules[__name__], "__version__", (3, 4))
    assert compiled(resize).contract.version is None


def test_a_partial_is_described_as_its_function() -> None:
    definition = define(functools.partial(resize, width=1))
    assert definition.name == "resize"
    assert definition.place == f"{__name__}:resize"
    assert definition.compile(Injectables()).contract.description == "Make a picture smaller."


@pytest.mark.parametrize(("price", "cost"), [(0.5, 0.5), (2, 2.0), ("0.5", None), (True, None), (None, None)], ids=repr)
def test_the_price_is_the_cost_when_it_is_a_number(price: object, cost: float | None) -> None:
    assert compiled(resize, price=price).contract.cost == cost


def test_events_have_two_names() -> None:
    assert compiled(resize, events_schema={"a": Alert}).contract == compiled(resize, events={"a": Alert}).contract
    with pytest.raises(SkillDefinitionError, match="events_schema"):
        define(resize, events={"a": Alert}, events_schema={"a": Alert})


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "x" * 129, "a\n", 3], ids=repr)
def test_names_are_checked(name: Any) -> None:
    with pytest.raises(SkillDefinitionError, match="A-Za-z0-9_-"):
        define(resize, name)


def test_a_name_may_have_128_characters() -> None:
    assert define(resize, "x" * 128).name == "x" * 128


def nested(levels: int) -> dict[str, Any]:
    return {"not": nested(levels - 1)} if levels > 1 else {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"expected_seconds": 0}, "expected_seconds"),
        ({"expected_seconds": True}, "expected_seconds"),
        ({"on_stale": "ignore"}, "on_stale must be 'stop' or 'finish'"),
        ({"max_concurrent": 0}, "max_concurrent"),
        ({"max_concurrent": 1.5}, "max_concurrent"),
        ({"prefetch": -1}, "prefetch must be an integer of 0 or more, not -1"),
        ({"prefetch": True}, "prefetch must be"),
        ({"prefetch": None}, "prefetch must be"),
        ({"prefetch": "2"}, "prefetch must be"),
        ({"prefetch": 1, "max_concurrent": 0}, "max_concurrent"),
        ({"pre_fetch": 1}, "did you mean 'prefetch'"),
        ({"executor": "gpu"}, "executor"),
        ({"type": "a b"}, "type"),
        ({"output_statuses": "done"}, "output_statuses"),
        ({"output_statuses": [1]}, "output_statuses"),
        ({"price": ...}, "price"),
        ({"input_schema": {"type": "nope"}}, "input"),
        ({"output_schema": {"type": "nope"}}, "output"),
        ({"events": {"alert": {"type": "nope"}}}, "alert"),
        ({"output_schema": ...}, "output"),
        ({"price": float("nan")}, r"metadata cannot be sent: \$\.price: nan"),
        ({"limits": {"most": [2**64]}}, r"metadata cannot be sent: \$\.limits\.most\[0\]"),
        ({"input_schema": {"properties": {"a": {"default": float("inf")}}}}, r"input cannot be sent: \$\.properties"),
        ({"output_schema": nested(29)}, "output cannot be sent: .*nested too deep"),
        ({"events": {"alert": {"const": 1e20}}}, r"events cannot be sent: \$\.alert\.const"),
        ({"description": "\ud800"}, "texts cannot be sent"),
    ],
    ids=str,
)
def test_wrong_declarations_name_skill_and_culprit(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SkillDefinitionError, match=said) as caught:
        compiled(resize, **options)
    assert caught.value.skill == "resize"


def test_a_schema_as_deep_as_orchestrators_take_is_accepted() -> None:
    assert compiled(resize, output_schema=nested(28)).contract.output_schema == nested(28)


def test_options_are_kept() -> None:
    assert compiled(resize, timeout=2, max_concurrent=3, executor="thread").options == SkillOptions(2, 3, "thread")
    assert compiled(resize).options == SkillOptions()
    assert compiled(resize, prefetch=2).options == SkillOptions(max_concurrent=1, prefetch=2)
    assert compiled(resize, prefetch=2, max_concurrent=3).options == SkillOptions(max_concurrent=3, prefetch=2)
    assert compiled(resize, timeout=2).contract.properties == {}


def test_a_coroutine_needs_no_thread() -> None:
    with pytest.raises(SkillDefinitionError, match="plain def"):
        define(later, executor="thread")


class AsyncTool:
    async def __call__(self, width: int) -> None: ...

    async def method(self, width: int) -> None: ...


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (later, True),
        (functools.partial(later), True),
        (AsyncTool(), True),
        (functools.partial(AsyncTool()), True),
        (AsyncTool().method, True),
        (resize, False),
        (functools.partial(resize), False),
    ],
)
def test_coroutine_functions_are_known(func: Callable[..., Any], expected: bool) -> None:
    assert compiled(func, "tool").is_async is expected


async def async_frames() -> AsyncIterator[int]:
    yield 1


def frames() -> Iterator[int]:
    yield 1


class Frames:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize(
    "func",
    [async_frames, frames, functools.partial(async_frames), Frames()],
    ids=["async", "sync", "partial", "object"],
)
def test_generators_stream(func: Callable[..., Any]) -> None:
    skill = compiled(func, "frames")
    assert skill.stream is not None
    assert skill.is_async is (func is not frames)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(SkillDefinitionError, match="function"):
        define(3)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ promises


def test_data_that_break_the_schema_are_a_violation_with_paths() -> None:
    skill = compiled(resize)
    skill.check_output({"width": 1})
    with pytest.raises(ContractViolationError, match=r"data\.width: expected integer, got string") as caught:
        skill.check_output({"width": "x"})
    assert caught.value.details["errors"] == [{"path": "$.width", "problem": "expected integer, got string"}]


@pytest.mark.parametrize("value", ["\ud800", 1j], ids=["no unicode", "no json"])
def test_data_the_validator_cannot_read_are_a_violation(value: Any) -> None:
    skill = compiled(resize, output_schema={"properties": {"a": {"enum": [1]}}})
    with pytest.raises(ContractViolationError):
        skill.check_output({"a": value, "\ud800": value})


def test_without_a_schema_all_data_is_valid() -> None:
    compiled(later).check_output({"anything": object()})


@pytest.mark.parametrize(
    ("name", "payload", "strict", "problem"),
    [
        ("alert", {"level": 1}, True, None),
        ("alert", {"level": "x"}, True, "payload.level"),
        ("alert", {}, False, "payload.level"),
        ("other", {}, True, "declared"),
        ("other", {}, False, None),
        ("progress", {"progress": 0.5}, True, None),
    ],
)
def test_events_are_checked_against_their_declaration(
    name: str, payload: dict[str, Any], strict: bool, problem: str | None
) -> None:
    found = compiled(resize, events={"alert": Alert}).event_problem(name, payload, strict)
    assert (found is None) if problem is None else (found is not None and problem in found)


def test_a_skill_that_declares_no_events_may_send_any() -> None:
    assert compiled(resize).event_problem("anything", {}, True) is None
