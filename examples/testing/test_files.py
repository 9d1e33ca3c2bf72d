"""Files in and out, without a store: the harness has a directory in its place."""

from pathlib import Path

from shop import worker

from avtomatika_worker.testing import WorkerHarness


async def test_a_receipt_is_written(tmp_path: Path):
    orders = tmp_path / "orders.csv"
    orders.write_text("tea,2\ncup,1\n")
    async with WorkerHarness(worker) as h:
        result = await h.run("receipt", {"orders": orders})
    assert result.data["cents"] == 2100
    assert result.file("receipt").read_text().splitlines()[-1] == "total          21.00"


async def test_a_file_can_be_made_of_what_is_in_it(worker_harness):
    h = await worker_harness(worker)
    result = await h.run("receipt", {"orders": h.store("orders.csv", "cup,3\n")})
    assert result.data["cents"] == 3600
