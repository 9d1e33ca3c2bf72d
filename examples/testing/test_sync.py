"""The same without ``async``."""

from shop import Order, worker

from avtomatika_worker.testing import WorkerClient


def test_ten_pieces_are_cheaper():
    with WorkerClient(worker) as c:
        result = c.run("price", Order("tea", 10))
    assert result.data == {"cents": 4050}
