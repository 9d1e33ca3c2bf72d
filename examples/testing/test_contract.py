"""What others rely on does not change by accident."""

from pathlib import Path

import pytest
from shop import worker

from avtomatika_worker import Worker
from avtomatika_worker.testing import assert_contract

CONTRACT = Path(__file__).with_name("contract.json")


def test_the_contract_is_kept():
    assert_contract(worker, CONTRACT)


def test_what_a_break_looks_like():
    changed = Worker(worker_type="shop")

    @changed.skill
    async def price(article: str, pieces: int, currency: str) -> dict: ...

    with pytest.raises(AssertionError) as broken:
        assert_contract(changed, CONTRACT)
    assert str(broken.value).splitlines()[1:-1] == [
        "  pack: the skill is gone",
        "  price: params.currency is required now",
        "  price: params.pieces is required now",
        "  price: data was object and may be anything now",
        "  price: event discount is no longer declared",
        "  receipt: the skill is gone",
    ]
