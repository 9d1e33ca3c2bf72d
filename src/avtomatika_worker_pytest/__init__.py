"""The pytest plugin of avtomatika-worker: the fixtures ``worker_harness`` and ``orchestrator``.

pytest imports this in every run, wherever the worker is installed. That is why it stands beside the package, whose
import takes a moment, and imports nothing of it before a fixture is used.
"""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixtures: those that work where pytest-asyncio is, else ones that say what is missing."""
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
