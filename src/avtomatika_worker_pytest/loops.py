"""Which event loops fixtures and tests run in: a worker cannot be started in one and stopped in another."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest

_FIXTURES = "asyncio_default_fixture_loop_scope"
_TESTS = "asyncio_default_test_loop_scope"


def loop_for(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoop:
    """Return the running loop. Fails the test when that is not asyncio's, or not the one that the test will run in."""
    name, config = request.fixturename or "the fixture", request.config
    loop = _running_loop()
    if loop is None:
        _fail(f"{name} needs asyncio, and another library runs this test, such as trio: choose anyio's backend asyncio")
    marker = request.node.get_closest_marker("asyncio")
    if request.node.get_closest_marker("anyio") is not None:
        mode = config.getoption("asyncio_mode", None) or _ini(config, "asyncio_mode")
        if "auto" in str(mode).lower():
            _fail(
                f"{name}: the test is marked anyio, and asyncio_mode=auto has pytest-asyncio run fixtures in a loop of "
                f"their own: set asyncio_mode=strict, or leave the mark out"
            )
    elif marker is not None:
        fixtures = _ini(config, _FIXTURES) or request.scope
        marked = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
        tests = marked or _ini(config, _TESTS) or "function"
        if fixtures != tests:
            source = f'mark asyncio(loop_scope="{marked}")' if marked else f"{_TESTS}={tests}"
            fail_for_loops(name, f"{_FIXTURES}={fixtures}", source)
    return loop


def check_loop(name: str, loop: asyncio.AbstractEventLoop) -> None:
    """Fail the test unless it runs in ``loop``."""
    if _running_loop() is not loop:
        fail_for_loops(name, _FIXTURES, f"{_TESTS} or its mark")


def fail_for_loops(name: str, fixtures: str, tests: str) -> NoReturn:
    """Fail the test: say which two settings differ."""
    _fail(
        f"{name} was set up in another event loop than the test runs in (fixtures: {fixtures}, the test: {tests}): "
        f"give both {_FIXTURES} and {_TESTS} the same value, or use `async with WorkerHarness(worker)` in the test"
    )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _fail(reason: str) -> NoReturn:
    pytest.fail(reason, pytrace=False)


def _ini(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(name)
    except ValueError:  # this pytest-asyncio does not have it
        return None
