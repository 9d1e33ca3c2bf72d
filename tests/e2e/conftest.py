"""Fixtures of the end-to-end tests: every test runs against each of the published orchestrators that were chosen."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from cluster.environments import InstallationError
from cluster.processes import ProcessError
from e2e.client import Client, Webhooks, client_of, listening_webhooks
from e2e.fleet import Fleet, Orchestrator, RunningWorker
from e2e.releases import chosen, since

INSTALLATION_ALLOWED = 600  # seconds; only the first run needs them

_fleet = pytest.StashKey[Fleet]()
_lines_before = pytest.StashKey[dict[int, int]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of this directory, and leave out those that are not meant for a release or for everyday."""
    own = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in own:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(INSTALLATION_ALLOWED))
    if left_out := [item for item in own if not _meant(item)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _meant(item: pytest.Item) -> bool:
    if item.get_closest_marker("slow") is not None and not os.environ.get("AVTOMATIKA_E2E_SLOW"):
        return False
    first = item.get_closest_marker("since")
    if first is None or not isinstance(item, pytest.Function):
        return True
    return since(item.callspec.params["orchestrator"], *first.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach to a failure what the processes have written during the test."""
    report = yield
    fleet = item.config.stash.get(_fleet, None)
    if report.failed and fleet is not None:
        before = item.stash.get(_lines_before, {})
        for number, process in enumerate(fleet.processes):
            output = process.output(since=before.get(number, 0))
            if output:
                report.sections.append((f"Output of {process.name}", output[-20_000:]))
    return report


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Fleet]:
    """All processes; they end with the session."""
    fleet = Fleet(tmp_path_factory.mktemp("e2e"))
    pytestconfig.stash[_fleet] = fleet
    try:
        yield fleet
    finally:
        fleet.stop()
    assert not fleet.leaked_secrets()


@pytest.fixture(autouse=True)
def _note_output(fleet: Fleet, request: pytest.FixtureRequest) -> None:
    """Note what the processes had written before the test."""
    request.node.stash[_lines_before] = {number: p.line_count for number, p in enumerate(fleet.processes)}


@pytest.fixture(params=chosen())
def orchestrator(fleet: Fleet, request: pytest.FixtureRequest) -> Orchestrator:
    """The shared orchestrator of each version."""
    try:
        return fleet.orchestrator(request.param)
    except (InstallationError, ProcessError) as error:
        problem = str(error)
    pytest.fail(problem, pytrace=False)


@pytest.fixture
def worker(fleet: Fleet, orchestrator: Orchestrator) -> RunningWorker:
    """The shared worker at that orchestrator."""
    return fleet.worker(orchestrator)


@pytest.fixture
async def client(orchestrator: Orchestrator) -> AsyncIterator[Client]:
    """A client of that orchestrator."""
    async with client_of(orchestrator.url) as client:
        yield client


@pytest.fixture
async def webhooks() -> AsyncIterator[Webhooks]:
    """A server for the orchestrator's webhooks."""
    async with listening_webhooks() as webhooks:
        yield webhooks
