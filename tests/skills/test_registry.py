"""Registering skills: the decorator, blueprints, names taken twice, references resolved later."""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any

import pytest

from avtomatika_worker.errors import SkillDefinitionError
from avtomatika_worker.skills.binding import Injectables, UnresolvedReferenceError
from avtomatika_worker.skills.blueprint import SkillBlueprint
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.skills.skill import define


def first(width: int) -> None: ...


def second(width: int) -> None: ...


def test_the_decorator_has_three_forms_and_returns_the_function() -> None:
    blueprint = SkillBlueprint("images")

    def bare() -> None: ...

    def called() -> None: ...

    def named() -> None: ...

    assert blueprint.skill(bare) is bare
    assert blueprint.skill()(called) is called
    assert blueprint.skill("other", price=1)(named) is named
    assert [each.name for each in blueprint.definitions] == ["bare", "called", "other"]
    assert "images" in repr(blueprint)


def test_the_name_may_be_a_keyword() -> None:
    blueprint = SkillBlueprint()
    blueprint.skill(name="other")(first)
    assert blueprint.definitions[0].name == "other"


def test_the_decorators_arguments_reach_the_contract() -> None:
    blueprint = SkillBlueprint()
    blueprint.skill("other", type="image", price=0.5, timeout=3)(first)
    skill = blueprint.definitions[0].compile(Injectables())
    assert (skill.contract.type, skill.contract.cost, skill.options.timeout) == ("image", 0.5, 3)


def test_skills_are_found_in_the_order_of_registration() -> None:
    registry = SkillRegistry(Injectables())
    registry.add(define(second))
    registry.add(define(first))
    assert registry.names() == ("second", "first")
    assert [skill.contract.name for skill in registry] == ["second", "first"]
    assert [contract.name for contract in registry.contracts()] == ["second", "first"]
    assert len(registry) == 2
    found = registry.get("first")
    assert found is not None
    assert found.func is first
    assert registry.get("third") is None


def test_a_duplicate_name_is_reported_with_both_places() -> None:
    registry = SkillRegistry(Injectables())
    registry.add(define(first))
    with pytest.raises(SkillDefinitionError) as caught:
        registry.add(define(second, "first"))
    assert f"{__name__}:first" in str(caught.value)
    assert f"{__name__}:second" in str(caught.value)
    found = registry.get("first")
    assert found is not None
    assert found.func is first


def test_a_skill_that_was_refused_leaves_its_name_free() -> None:
    registry = SkillRegistry(Injectables())
    with pytest.raises(SkillDefinitionError):
        registry.add(define(first, input_schema={"type": "nope"}))
    registry.add(define(first))
    assert len(registry) == 1


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module whose skill refers to what is defined further down."""
    module = types.ModuleType("module_with_forward_reference")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("def resize(params: 'Size') -> 'Size': return params", vars(module))  # noqa: S102
    return module


def test_a_forward_reference_is_resolved_on_freezing(module: types.ModuleType) -> None:
    registry = SkillRegistry(Injectables())
    registry.add(define(module.resize))
    assert registry.names() == ("resize",)
    assert registry.get("resize") is None

    @dataclasses.dataclass
    class Size:
        width: int

    module.Size = Size  # type: ignore[attr-defined]
    registry.freeze()
    skill = registry.get("resize")
    assert skill is not None
    schema: dict[str, Any] = skill.contract.input_schema or {}
    assert schema["required"] == ["width"]


def test_an_unresolved_reference_is_reported_on_freezing(module: types.ModuleType) -> None:
    registry = SkillRegistry(Injectables())
    registry.add(define(module.resize))
    with pytest.raises(UnresolvedReferenceError, match="Size"):
        registry.freeze()


def test_freezing_twice_keeps_the_skills() -> None:
    registry = SkillRegistry(Injectables())
    registry.add(define(first))
    before = registry.get("first")
    registry.freeze()
    assert registry.get("first") is before


def test_one_definition_counts_once() -> None:
    registry, definition = SkillRegistry(Injectables()), define(first)
    registry.add(definition)
    registry.add(definition)
    assert registry.names() == ("first",)
