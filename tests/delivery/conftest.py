"""The outbox in virtual time."""

import pytest

from delivery.bench import Bench


@pytest.fixture
def make():
    """Return a function that makes benches."""
    benches = []

    def make_bench(**settings):
        benches.append(Bench(**settings))
        return benches[-1]

    yield make_bench
    for each in benches:
        each.end()


@pytest.fixture
def bench(make):
    return make()
