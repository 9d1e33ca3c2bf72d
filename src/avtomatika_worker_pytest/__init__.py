"""The pytest plugin of avtomatika-worker: the fixtures ``worker_harness``, ``orchestrator`` and ``worker_history``.

pytest imports this in every run, wherever the worker is installed. That is why it stands beside the package, whose
import takes a moment, and imports nothing of it before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from avtomatika_worker.testing.history import History


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixtures: those that work where pytest-asyncio is, else ones that say what is missing."""
    config.addinivalue_line("markers", "breaks_invariants(names): worker_history does not check these invariants")
    if config.pluginmanager.hasplugin("asyncio"):
        from avtomatika_worker_pytest import fixtures

        config.pluginmanager.register(fixtures, "avtomatika_worker fixtures")
    else:
        config.pluginmanager.register(_Without(), "avtomatika_worker fixtures")


class _Without:
    """Stands in for the fixtures."""

    @pytest.fixture
    def worker_harness(self) -> None:
        """Start workers beside embedded orchestrators; needs pytest-asyncio."""
        pytest.fail("the fixture worker_harness needs pytest-asyncio; `async with WorkerHarness(worker)` does not")

    @pytest.fixture
    def orchestrator(self) -> None:
        """Run an embedded orchestrator; needs pytest-asyncio."""
        pytest.fail("the fixture orchestrator needs pytest-asyncio; `async with EmbeddedOrchestrator()` does not")


@pytest.fixture
def worker_history(request: pytest.FixtureRequest) -> Iterator[History]:
    """Record what embedded orchestrators and workers do; when all of them have ended, check the invariants.

    Give a test that breaks some on purpose the mark ``breaks_invariants("events_in_order", …)``. Yields the `History`.
    """
    from avtomatika_worker.testing.history import recording

    with recording() as history:
        yield history
    marks = request.node.iter_markers("breaks_invariants")
    history.check(except_for={name for mark in marks for name in mark.args})
