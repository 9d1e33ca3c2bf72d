"""Checks a program's arguments to `Worker` at once: later they would fail far from the mistake."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from avtomatika_worker.errors import ConfigError
from avtomatika_worker.execution.middleware import Middleware, name_of
from avtomatika_worker.narrowing import as_any
from avtomatika_worker.skills.skill import is_async
from avtomatika_worker.tasks.limits import CapacityChecker, takes_skill

F = TypeVar("F")


def checked_limits(limits: Mapping[str, int]) -> dict[str, int]:
    """Return limits by type of skill. Raises `ConfigError` that names every invalid one."""
    _check_mapping("skill_type_limits", limits, "{'gpu': 1}")
    problems = [
        f"skill_type_limits: {kind!r} must have a positive integer, not {most!r}"
        for kind, most in limits.items()
        if isinstance(most, bool) or not isinstance(as_any(most), int) or most < 1
    ]
    if problems:
        raise ConfigError(problems)
    return dict(limits)


def checked_dependencies(dependencies: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return skills' needs in the hot cache. Raises `ConfigError`: a bare text would be split into letters."""
    _check_mapping("skill_dependencies", dependencies, "{'caption': ['vit-large']}")
    problems = [
        f"skill_dependencies: {skill!r} must have a list of names, not {needs!r}"
        for skill, needs in dependencies.items()
        if isinstance(needs, str) or not all(isinstance(each, str) for each in as_any(needs))
    ]
    if problems:
        raise ConfigError(problems)
    return {skill: tuple(needs) for skill, needs in dependencies.items()}


def checked_function(name: str, function: F) -> F:
    """Return a function, or None. Raises `ConfigError` for anything else, and for ``async def``."""
    if function is not None and not callable(function):
        raise ConfigError([f"{name} must be a function, not {function!r:.80}"])
    if inspect.iscoroutinefunction(function):
        raise ConfigError([f"{name} must be a plain def: it is called, not awaited"])
    return function


def checked_capacity_checker(checker: CapacityChecker | None) -> CapacityChecker | None:
    """Return a capacity checker, or None. Raises `ConfigError` as `checked_function`, and for other arguments."""
    if checked_function("capacity_checker", checker) is None:
        return None
    try:
        takes_skill(as_any(checker))
    except TypeError:
        problem = "it must take the name of a skill, or no argument"
    except ValueError:
        problem = "its arguments cannot be read: wrap it, as in `lambda skill: checker(skill)`"
    else:
        return checker
    raise ConfigError([f"capacity_checker {checker!r:.80}: {problem}"])


def checked_middleware(middleware: Middleware) -> Middleware:
    """Return a middleware. Raises `ConfigError` for anything but an ``async def`` that takes context and next."""
    given: Any = middleware
    if not callable(given):
        raise ConfigError([f"a middleware must be `async def mw(ctx, call_next)`, not {given!r:.80}"])
    if inspect.isclass(given):
        raise ConfigError([f"middleware {name_of(given)}: it is a class; add an object of it, with an async __call__"])
    functions: list[Any] = [given, inspect.unwrap(given), getattr(given, "__call__", None)]  # noqa: B004
    if any(inspect.isasyncgenfunction(each) or inspect.isgeneratorfunction(each) for each in functions):
        raise ConfigError([f"middleware {name_of(given)}: it must not yield; `return await call_next(ctx)` goes on"])
    try:
        inspect.signature(given).bind(None, None)
    except TypeError:
        raise ConfigError([f"middleware {name_of(given)}: it must take two arguments, (ctx, call_next)"]) from None
    except ValueError:  # a callable without a readable signature
        pass
    if not any(map(is_async, functions[:2])):
        raise ConfigError([f"middleware {name_of(given)}: it must be async def, to return await call_next(ctx)"])
    return middleware


def _check_mapping(name: str, value: object, example: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError([f"{name} must be a mapping such as {example}, not {value!r:.80}"])
