import pytest

pytest.importorskip("numpy")

from brightness import worker


async def test_pictures_of_all_sizes_are_measured(worker_harness):
    h = await worker_harness(worker)
    pictures = [[[0, 255], [255, 0]], [[255, 255, 255]], [[0, 0], [0, 0]]]
    results = await h.run_many("brightness", [{"pixels": each} for each in pictures])
    assert [each.data["result"] for each in results] == [0.5, 1, 0]


async def test_lists_that_are_no_picture_fail_their_own_task(worker_harness):
    h = await worker_harness(worker)
    good, uneven, dark = await h.run_many("brightness", [{"pixels": each} for each in ([[51]], [[1, 2], [3]], [[-1]])])
    assert good.data == {"result": 0.2}
    assert "its lists must be of equal lengths" in uneven.error.message
    assert "a number is out of the range of uint8, 0 to 255" in dark.error.message
