"""Sizes and times as the decorator for models takes them."""

import pytest

from avtomatika_worker.policy.model_pool import PoolLimits
from avtomatika_worker.skills.model_options import options_of


@pytest.mark.parametrize(
    ("given", "size"),
    [("8GiB", 8 * 2**30), ("500MB", 500_000_000), ("1.5 GiB", 3 * 2**29), ("64KiB", 65536), ("10B", 10), (7, 7)],
)
def test_memory_is_bytes_or_a_text(given, size):
    assert options_of("load", {"memory": given}).limits == PoolLimits(1, size, None)


@pytest.mark.parametrize(
    ("given", "seconds"), [("10m", 600.0), ("30s", 30.0), ("1.5h", 5400.0), ("2d", 172_800.0), (0, 0.0), (2.5, 2.5)]
)
def test_keep_alive_is_seconds_or_a_text(given, seconds):
    assert options_of("load", {"keep_alive": given}).limits == PoolLimits(1, None, seconds)


def test_by_default_one_model_is_loaded():
    assert options_of("load", {}).limits == PoolLimits(1, None, None)
