"""Tests that take their time by nature check all releases at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from e2e.releases import chosen


async def for_each_release(check: Callable[[str], Awaitable[None]]) -> None:
    """Run ``check`` for every chosen release, side by side; all come to their end before one is said to have failed."""
    versions = chosen()
    outcomes = await asyncio.gather(*(check(version) for version in versions), return_exceptions=True)
    errors: list[Exception] = []
    for version, outcome in zip(versions, outcomes, strict=True):
        if isinstance(outcome, Exception):
            outcome.add_note(f"with orchestrator {version}")
            errors.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    if errors:
        raise errors[0] if len(errors) == 1 else ExceptionGroup("several releases", errors)
