"""A task that fails in a way that is retried goes on where it was, in every executor, at whatever worker."""

import pytest

from checkpoints import apps
from services.conftest import running

SKILLS = [
    "on_loop",
    "in_thread",
    "in_process",
    "on_the_loop_of_a_process",
    "loop_on_loop",
    "loop_in_thread",
    "loop_in_process",
]


def files_below(directory):
    return [each for each in directory.rglob("*") if each.is_file()]


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("interval", [0.0, 3600.0])
async def test_another_attempt_goes_on_where_the_last_one_was(orchestrator, tmp_path, skill, interval):
    params = {"log": str(tmp_path / "log"), "flag": str(tmp_path / "flag"), "at": 6}
    state = tmp_path / "state"
    async with running(apps.worker, orchestrator, state_dir=state, checkpoint_interval=interval):
        job = await orchestrator.submit(skill, params).done(30)
    assert job.result == {"done": 10, "sum": 45}
    assert job.attempts == 2
    assert (tmp_path / "log").read_text().split() == [str(step) for step in range(10)], "each step is done once"
    assert files_below(state / "checkpoints") == [], "nothing is left after the result was accepted"
