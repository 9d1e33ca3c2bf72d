"""Names that the official SDK has or had and this one lacks, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

from avtomatika_worker.errors import ConfigError

ARGUMENTS: Final = {
    "task_type_limits": "use skill_type_limits=",
    "http_session": (
        "the worker makes its own connections; configure proxies with HTTP_PROXY and NO_PROXY, certificates with"
        " TLS_CA_PATH, TLS_CERT_PATH and TLS_KEY_PATH"
    ),
    "clients": (
        "configure orchestrators with ORCHESTRATORS_CONFIG or WorkerConfig.ORCHESTRATORS; in tests, use WorkerHarness"
        " or EmbeddedOrchestrator (avtomatika_worker.testing)"
    ),
}
"""Arguments of ``Worker``."""

ATTRIBUTES: Final = {
    "task": "use .skill(…)",
    "add_to_hot_cache": "use .add_to_hot_skills(…)",
    "remove_from_hot_cache": "use .remove_from_hot_skills(…)",
    "get_hot_cache": "use .get_hot_skills_state()",
}
"""Attributes of ``Worker`` and ``SkillBlueprint``."""


def refuse_arguments(given: dict[str, Any], known: Iterable[str]) -> None:
    """Raise `ConfigError` for arguments that no longer exist, TypeError for those that never did."""
    former = [name for name in given if name in ARGUMENTS]
    if former:
        raise ConfigError([f"Worker has no argument {name}: {ARGUMENTS[name]}" for name in former])
    if given:
        raise TypeError("; ".join(_no_argument(name, known) for name in given))


def _no_argument(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [each for each in known if each not in ARGUMENTS], n=1)
    return f"Worker has no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def no_attribute(owner: object, name: str) -> AttributeError:
    """Return the error for an attribute that an object does not have."""
    what = type(owner).__name__
    if name in ATTRIBUTES:
        return AttributeError(f"{what} has no {name}: {ATTRIBUTES[name]}", name=name, obj=owner)
    return AttributeError(f"{what!r} object has no attribute {name!r}", name=name, obj=owner)
