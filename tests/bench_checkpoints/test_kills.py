"""The bench that kills workers in the middle of a task that saves checkpoints: a short run of it, for real."""

import pytest

from bench import checkpoints


@pytest.mark.breaks_invariants("heartbeats_in_time")  # of a worker that is killed
@pytest.mark.parametrize("store", ["directory", "s3"])
async def test_a_task_survives_the_kill_of_each_worker_that_runs_it(tmp_path, request, store):
    s3 = request.getfixturevalue("s3").url if store == "s3" else None
    if s3 is not None:
        request.getfixturevalue("s3").make_bucket(checkpoints.BUCKET)
    report = await checkpoints.run(2, seed=2, directory=tmp_path, s3=s3, count=15)
    assert report.good, report
    assert report.attempts == 3
    assert report.store == store
