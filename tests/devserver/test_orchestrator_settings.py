"""Settings of the embedded orchestrator."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_type_hints

import pytest

from avtomatika_worker.devserver import PRODUCTION_LIKE, EmbeddedOrchestrator, OrchestratorOptions, OrchestratorSettings


def test_every_setting_can_be_given_as_a_keyword() -> None:
    fields = inspect.get_annotations(OrchestratorSettings, eval_str=True)
    assert get_type_hints(OrchestratorOptions) == fields


def test_keywords_override_settings() -> None:
    patient = EmbeddedOrchestrator(poll_time=0.5)
    assert patient.settings == OrchestratorSettings(poll_time=0.5)
    strict = EmbeddedOrchestrator(PRODUCTION_LIKE, task_timeout=0.3)
    assert strict.settings == dataclasses.replace(PRODUCTION_LIKE, task_timeout=0.3)
    assert EmbeddedOrchestrator(PRODUCTION_LIKE).settings is not OrchestratorSettings()


def test_an_unknown_keyword_is_refused() -> None:
    wrong: dict[str, Any] = {"pol_time": 1.0}
    with pytest.raises(TypeError, match="pol_time"):
        EmbeddedOrchestrator(**wrong)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"rate_limits": {"polls": 3}}, "rate_limits: polls is not a call; choose from poll, heartbeat, result"),
        ({"task_timeout": -1.0}, "task_timeout is -1.0; it must be finite and at least 0"),
        ({"poll_time": float("nan")}, "poll_time is nan; it must be finite and at least 0"),
        ({"max_attempts": 0}, "max_attempts is 0; it must be finite and at least 1"),
        ({"version": "2.0"}, "unknown protocol version '2.0'"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        OrchestratorSettings(**wrong)


def test_the_representation_has_no_secrets() -> None:
    settings = OrchestratorSettings(token="s3cret-1", secret_key="s3cret-2", individual_tokens={"w": "s3cret-3"})
    assert "s3cret" not in repr(settings)
