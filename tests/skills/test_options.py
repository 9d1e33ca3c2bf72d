"""Options of the decorator, and what is metadata beside them."""

from __future__ import annotations

from typing import Any

import pytest

from avtomatika_worker import SkillBlueprint, Worker
from avtomatika_worker.errors import SkillDefinitionError
from avtomatika_worker.skills.binding import Injectables
from avtomatika_worker.skills.skill import define


def resize(width: int) -> None:
    """Do nothing."""


def properties(**given: Any) -> dict[str, Any]:
    return dict(define(resize, **given).compile(Injectables()).contract.properties)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("timout", "timeout"),
        ("time_out", "timeout"),
        ("timeout_seconds", "timeout"),
        ("Timeout", "timeout"),
        ("exector", "executor"),
        ("max_concurency", "max_concurrent"),
        ("max_concurrent_tasks", "max_concurrent"),
        ("maxConcurrent", "max_concurrent"),
        ("cancel_gace", "cancel_grace"),
        ("inputs_schema", "input_schema"),
        ("output_status", "output_statuses"),
        ("event", "events"),
        ("desciption", "description"),
        ("verison", "version"),
        ("tpye", "type"),
        ("nmae", "name"),
        ("metdata", "metadata"),
        ("propertys", "properties"),
        ("pirce", "price"),
    ],
)
def test_a_misspelled_option_is_refused_with_a_suggestion(given: str, meant: str) -> None:
    with pytest.raises(SkillDefinitionError) as caught:
        define(resize, **{given: 1})
    assert f"there is no option {given!r}; did you mean {meant!r}?" in str(caught.value)
    assert properties(metadata={given: 1}) == {given: 1}  # the remedy that the message names


@pytest.mark.parametrize("name", ["price", "category", "tags", "languages", "author", "model_version", "api_version",
                                  "media_type", "region", "gpu", "limits", "models", "vendor"])  # fmt: skip
def test_other_keywords_are_metadata(name: str) -> None:
    assert properties(**{name: 1}) == {name: 1}


@pytest.mark.parametrize("holder", ["metadata", "properties"])
def test_metadata_may_be_given_as_a_dict(holder: str) -> None:
    assert properties(**{holder: {"timout": "x", "tier": 2}}, price=0.5) == {"price": 0.5, "timout": "x", "tier": 2}
    assert properties(metadata={"a": 1}, properties={"b": 2}, schema_dialect="json-schema") == {"a": 1, "b": 2}
    assert properties(**{holder: None}) == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metadata": ["a"]}, "metadata must be a dict"),
        ({"properties": {1: "a"}}, "properties must be a dict"),
        ({"metadata": {"price": 1}, "price": 2}, "both give 'price'"),
        ({"metadata": {"a": 1}, "properties": {"a": 1}}, "both give 'a'"),
        ({"metadata": {"a": object()}}, "must be JSON-able"),
        ({"schema_dialect": "avro"}, "schema_dialect must be 'json-schema'"),
        ({"executor": ["process"]}, "executor must be"),
        ({"executor": "fork"}, "executor must be"),
        ({"timeout": "1"}, "timeout must be"),
        ({"timeout": True}, "timeout must be"),
        ({"max_concurrent": 0}, "max_concurrent must be"),
        ({"max_concurrent": "2"}, "max_concurrent must be"),
        ({"cancel_grace": None}, "cancel_grace must be"),
        ({"version": 2.1}, "version must be a string"),
        ({"description": ["a"]}, "description must be a string"),
        ({"output_statuses": 5}, "output_statuses must be a list of strings"),
        ({"output_statuses": (each for each in ["a"])}, "output_statuses must be a list of strings"),
        ({"output_statuses": [""]}, "output_statuses must be a list of strings"),
    ],
    ids=range(18),
)
def test_an_option_of_a_wrong_kind_is_refused_where_it_is_given(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SkillDefinitionError, match=said):
        define(resize, **given)


@pytest.mark.parametrize("owner", [Worker, SkillBlueprint])
def test_worker_and_blueprint_refuse_alike(owner: Any) -> None:
    with pytest.raises(SkillDefinitionError, match="did you mean 'timeout'"):
        owner().skill("resize", timout=1)(resize)
    with pytest.raises(TypeError, match="timout"):
        owner().resource(timout=1)


def test_options_may_be_passed_together_with_the_function() -> None:
    blueprint = SkillBlueprint()
    decorate: Any = blueprint.skill
    assert decorate(resize, timeout=3, name="scale") is resize
    (definition,) = blueprint.definitions
    assert (definition.name, definition.options.timeout) == ("scale", 3)


@pytest.mark.parametrize("gpus", [0, -1, 0.001, 1.5, 2.5, float("nan"), float("inf"), True, "1", [1], 10**6])
def test_gpus_is_a_number_of_devices_or_a_share_of_one(gpus: Any) -> None:
    with pytest.raises(SkillDefinitionError, match="gpus must be a number of devices") as caught:
        define(resize, executor="process", gpus=gpus)
    assert repr(gpus) in str(caught.value)


@pytest.mark.parametrize("executor", [None, "thread"])
def test_only_a_process_is_given_devices(executor: str | None) -> None:
    with pytest.raises(SkillDefinitionError, match="gpus is for executor='process'"):
        define(resize, executor=executor, gpus=1)


@pytest.mark.parametrize("gpus", [0.01, 0.3, 0.5, 1, 1.0, 2, 2.0])
def test_shares_and_whole_devices_may_be_asked_for(gpus: float) -> None:
    assert define(resize, executor="process", gpus=gpus).options.gpus == gpus
