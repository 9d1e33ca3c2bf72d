"""How checkpoints are kept: how often they are written, for how long, what becomes of them when something fails."""

import asyncio
import os
from dataclasses import dataclass
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker import PermanentError, TaskContext, TransientError, UnsafeNameError, Worker
from avtomatika_worker.checkpoints.checkpoint_service import checkpoint_key
from avtomatika_worker.checkpoints.saved_state import MOST_STATE, Kind, State, StateMismatchError, written
from avtomatika_worker.devserver import Fault, JobState
from avtomatika_worker.execution.outcome import Succeeded, from_exception
from avtomatika_worker.execution.report import build_result
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.protocol.work import work_key
from avtomatika_worker.tasks.settling import with_checkpoint
from checkpoints.test_resuming import files_below, until
from services.conftest import actions, running

CHECKPOINTS = "checkpoints"


@pytest.fixture
def worker():
    return Worker(worker_type="test")


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def heads(state):
    return [each for each in files_below(state / CHECKPOINTS) if each.name == "head"]


# ---------------------------------------------------------------------------------------------------- states


@dataclass
class Training:
    epoch: int
    best: float


class Position(msgspec.Struct):
    page: int
    seen: set[str]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_json_values_come_back_unchanged_including_infinities_and_huge_integers(value):
    assert written(value).read() == value


@given(st.binary())
def test_bytes_come_back_as_they_were(value):
    assert written(value).read() == value
    assert written(bytearray(value)).read(bytes) == value


@pytest.mark.parametrize("value", [Training(3, float("inf")), Position(7, {"a", "b"})])
def test_typed_states_come_back_as_their_type(value):
    assert written(value).read(type(value)) == value


@pytest.mark.parametrize(
    ("value", "of"), [({"epoch": "three"}, Training), ([1], Training), (b"bytes", Training), ({"page": 1}, bytes)]
)
def test_a_state_of_another_type_is_an_error(value, of):
    with pytest.raises(StateMismatchError):
        written(value).read(of)


@pytest.mark.parametrize("value", [object(), {"model": lambda: None}, {"x": [1, {"y": object}]}, {1: 2, "1": 3}])
def test_a_state_that_is_neither_json_nor_bytes_is_refused_with_its_path(value):
    with pytest.raises(TypeError, match=r"must be JSON or bytes: \$"):
        written(value)


def test_a_large_state_belongs_in_a_file():
    with pytest.raises(ValueError, match=r"files=\[…\]"):
        written(bytes(MOST_STATE + 1))


# ---------------------------------------------------------------------------------------------------- how often


async def test_saves_within_the_interval_are_combined_and_the_newest_is_written_when_it_is_over(
    orchestrator, worker, state
):
    answers = []

    @worker.skill
    async def save(ctx: TaskContext):
        answers.extend([bool(await ctx.checkpoint.save(step)) for step in range(5)])
        assert not ctx.checkpoint.due
        async with asyncio.timeout(10):
            while True:
                if await ctx.checkpoint.load() == 4:
                    break
                await asyncio.sleep(0.02)
        answers.append(bool(await ctx.checkpoint.save("now", now=True)))
        assert await ctx.checkpoint.load() == "now"

    async with running(worker, orchestrator, state_dir=state, checkpoint_interval=0.3):
        job = await orchestrator.submit("save").done()
    assert job.state is JobState.FINISHED, job.error
    assert answers == [True, False, False, False, False, True]


async def test_what_nobody_waited_for_is_stored_all_the_same(orchestrator, worker, state):
    loaded = []

    @worker.skill
    async def save(ctx: TaskContext):
        loaded.append(await ctx.checkpoint.load())
        if loaded[-1] is None:
            assert ctx.checkpoint.save({"step": 1})
            raise TransientError("once")

    async with running(worker, orchestrator, state_dir=state):
        await orchestrator.submit("save").done()
    assert loaded == [None, {"step": 1}]


# ---------------------------------------------------------------------------------------------------- for how long


@pytest.mark.parametrize(
    ("error", "left"), [(TransientError("again"), 1), (PermanentError("never"), 0), (ValueError("again"), 1)]
)
async def test_it_is_kept_for_another_attempt_and_removed_if_there_is_none(orchestrator, worker, state, error, left):
    @worker.skill
    async def fail(ctx: TaskContext):
        await ctx.checkpoint.save(1)
        raise error

    async with running(worker, orchestrator, state_dir=state):
        job = await orchestrator.submit("fail").done()
    assert job.state is JobState.QUARANTINED
    assert bool(heads(state)) is bool(left)


async def test_it_is_removed_with_a_cancelled_task(orchestrator, worker, state):
    @worker.skill
    async def wait(ctx: TaskContext):
        await ctx.checkpoint.save(1)
        await asyncio.Event().wait()

    async with running(worker, orchestrator, state_dir=state):
        job = orchestrator.submit("wait")
        await orchestrator.wait_for(lambda: heads(state) or None if job.state is JobState.RUNNING else None)
        orchestrator.cancel(job.job_id)
        await until(lambda: not heads(state))


async def test_it_stays_until_the_result_is_accepted(orchestrator, worker, state):
    @worker.skill
    async def save(ctx: TaskContext):
        await ctx.checkpoint.save(1)

    async with running(worker, orchestrator, state_dir=state):
        fault = Fault(call="result", kind="status", status=503, times=3)
        orchestrator.inject(fault)
        job = orchestrator.submit("save")
        await orchestrator.wait_for(lambda: fault.used or None)
        assert heads(state)
        await job.done()
        await until(lambda: not files_below(state / CHECKPOINTS))


async def test_a_worker_that_was_ended_before_it_could_remove_it_does_so_after_its_restart(
    orchestrator, worker, state, caplog
):
    @worker.skill
    async def save(ctx: TaskContext):
        await ctx.checkpoint.save(1)

    async with running(worker, orchestrator, state_dir=state, shutdown_timeout=0.2):
        lost = Fault(call="result", kind="status", status=503, times=None)
        orchestrator.inject(Fault(call="result", kind="drop_after", times=1), lost)
        job = orchestrator.submit("save")
        await orchestrator.wait_for(lambda: lost.used or None)
    assert job.state is JobState.FINISHED, "the result had arrived, its answer had not"
    assert heads(state)
    orchestrator.clear_faults()
    async with running(worker, orchestrator, state_dir=state):
        await until(lambda: not files_below(state / CHECKPOINTS))
    assert actions(caplog, "result_ignored")


async def test_what_is_too_old_is_removed(orchestrator, worker, state):
    @worker.skill
    async def fail(ctx: TaskContext):
        await ctx.checkpoint.save(1)
        raise PermanentError("no") if ctx.params.get("permanent") else TransientError("again")

    async with running(worker, orchestrator, state_dir=state):
        await orchestrator.submit("fail").done()
    [head, *_] = heads(state)
    for each in files_below(state / CHECKPOINTS):
        os.utime(each, (0, 0))
    async with running(worker, orchestrator, state_dir=state):
        await until(lambda: not head.exists())
    assert not files_below(state / CHECKPOINTS)


# ---------------------------------------------------------------------------------------------------- whose it is


ORIGINAL = {
    "orchestrator": "http://one",
    "job_id": "job-1",
    "type": "train",
    "step": 1,
    "params": {"x": 1},
    "version": "1",
}


def key_of(orchestrator, version, **task):
    return checkpoint_key(work_key(orchestrator, Task(task_id="task-1", **task)), version)


@pytest.mark.parametrize(
    "change",
    [
        {"orchestrator": "http://two"},
        {"job_id": "job-2"},
        {"type": "test"},
        {"step": 2},
        {"params": {"x": 2}},
        {"version": "2"},
        {"version": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_checkpoint_belongs_to_orchestrator_job_skill_step_params_and_version(change):
    assert key_of(**ORIGINAL) == key_of(**ORIGINAL)
    assert key_of(**ORIGINAL) != key_of(**{**ORIGINAL, **change})


async def test_another_job_has_none_of_it(orchestrator, worker, state):
    loaded = []

    @worker.skill
    async def save(ctx: TaskContext):
        loaded.append(await ctx.checkpoint.load())
        await ctx.checkpoint.save(len(loaded))
        raise TransientError("again")

    async with running(worker, orchestrator, state_dir=state):
        await orchestrator.submit("save").done()
        await orchestrator.submit("save").done()
    assert loaded == [None, 1, 2, 3, 4, None, 6, 7, 8, 9]


async def test_two_tasks_of_the_same_skill_at_the_same_time_have_one_each(orchestrator, worker, state):
    results = {}

    @worker.skill
    async def save(ctx: TaskContext, n: int):
        saved = await ctx.checkpoint.load()
        if saved is None:
            await ctx.checkpoint.save(n)
            raise TransientError("again")
        results[n] = saved

    async with running(worker, orchestrator, state_dir=state):
        for job in [orchestrator.submit("save", {"n": n}) for n in range(8)]:
            await job.done()
    assert results == {n: n for n in range(8)}


# ---------------------------------------------------------------------------------------------------- files


async def test_files_are_where_they_were_in_the_directory_of_the_next_attempt(orchestrator, worker, state):
    seen = []

    @worker.skill
    async def train(ctx: TaskContext):
        saved = await ctx.checkpoint.load()
        if saved is None:
            await ctx.files.write("weights/model.bin", b"\0\1")
            path = await ctx.files.write("log.txt", "one")
            await ctx.checkpoint.save({"epoch": 1}, files=["weights/model.bin", path])
            await ctx.files.write("log.txt", "two")
            raise TransientError("again")
        seen.append(await ctx.files.read("weights/model.bin", "rb"))
        seen.append(await ctx.files.read("log.txt"))
        return saved

    async with running(worker, orchestrator, state_dir=state):
        job = await orchestrator.submit("train").done()
    assert job.result == {"epoch": 1}
    assert seen == [b"\0\1", "one"]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "missing", "a/../../b"])
async def test_files_elsewhere_and_missing_ones_are_refused(orchestrator, worker, state, name):
    raised = []

    @worker.skill
    async def save(ctx: TaskContext):
        try:
            await ctx.checkpoint.save(1, files=[name])
        except (FileNotFoundError, UnsafeNameError) as error:
            raised.append(type(error).__name__)

    async with running(worker, orchestrator, state_dir=state):
        await orchestrator.submit("save").done()
    assert raised == ["FileNotFoundError" if name == "missing" else "UnsafeNameError"]
    assert not heads(state)


# ---------------------------------------------------------------------------------------------------- failures


async def test_a_place_that_cannot_be_written_fails_no_task(orchestrator, worker, state, caplog):
    answers = []

    @worker.skill
    async def save(ctx: TaskContext):
        answers.append(bool(await ctx.checkpoint.save(1)))
        return "done"

    state.mkdir()
    (state / CHECKPOINTS).write_text("a file where the directory should be")
    async with running(worker, orchestrator, state_dir=state):
        job = await orchestrator.submit("save").done()
    assert job.state is JobState.FINISHED, job.error
    assert answers == [False]
    assert actions(caplog, "checkpoint_failed")


@pytest.mark.parametrize("deferred", [False, True])
async def test_a_state_that_could_not_be_written_is_written_when_its_task_ends(orchestrator, worker, state, deferred):
    loaded, occupied = [], state / CHECKPOINTS

    @worker.skill
    async def save(ctx: TaskContext):
        loaded.append(await ctx.checkpoint.load())
        if loaded[-1] is None:
            assert not await ctx.checkpoint.save(1)
            if deferred:
                assert not ctx.checkpoint.save(2)
                await until(lambda: ctx.checkpoint.due)  # the time has come, and it was tried
            occupied.unlink()
            raise TransientError("again")

    state.mkdir()
    occupied.write_text("a file where the directory should be")
    async with running(worker, orchestrator, state_dir=state, checkpoint_interval=0.1):
        job = await orchestrator.submit("save").done()
    assert job.state is JobState.FINISHED, job.error
    assert loaded == [None, 2 if deferred else 1]


async def test_a_checkpoint_of_another_form_is_not_used_and_the_log_says_why(orchestrator, worker, state, caplog):
    loaded = []

    @worker.skill
    async def train(ctx: TaskContext):
        loaded.append(await ctx.checkpoint.load(Training))
        if len(loaded) == 1:
            await ctx.files.write("x", "x")
            await ctx.checkpoint.save({"epoch": "one"}, files=["x"])
            raise TransientError("again")
        assert not await ctx.files.exists("x")

    async with running(worker, orchestrator, state_dir=state):
        job = await orchestrator.submit("train").done()
    assert job.state is JobState.FINISHED, job.error
    assert loaded == [None, None]
    [why] = actions(caplog, "checkpoint_mismatch")
    assert "epoch" in why


async def test_a_type_that_json_cannot_be_read_as_is_refused_at_once(orchestrator, worker, state):
    raised = []

    class Model:
        def __init__(self, layers):
            self.layers = layers

    @worker.skill
    async def train(ctx: TaskContext):
        try:
            await ctx.checkpoint.load(Model)
        except TypeError as error:
            raised.append(str(error))

    async with running(worker, orchestrator, state_dir=state):
        await orchestrator.submit("train").done()
    assert "Model" in raised[0]


async def test_what_cannot_be_put_back_leaves_the_version_before_it(orchestrator, worker, state, caplog):
    loaded = []

    @worker.skill
    async def train(ctx: TaskContext):
        if loaded:
            await ctx.files.write("model/part", "a file in a directory where a file was")
        loaded.append(await ctx.checkpoint.load())
        if len(loaded) == 1:
            await ctx.checkpoint.save("older")
            await ctx.files.write("a", "restored before the one that cannot be")
            await ctx.files.write("model", "weights")
            await ctx.checkpoint.save("newer", files=["a", "model"], now=True)
            raise TransientError("again")
        assert not await ctx.files.exists("a")

    async with running(worker, orchestrator, state_dir=state):
        job = await orchestrator.submit("train").done()
    assert job.state is JobState.FINISHED, job.error
    assert loaded == [None, "older"]
    assert actions(caplog, "checkpoint_damaged")


@pytest.mark.parametrize("saves", [True, False], ids=["saved before", "saves first then"])
async def test_what_still_runs_after_its_task_has_ended_saves_nothing(orchestrator, worker, state, caplog, saves):
    contexts = []

    @worker.skill
    async def leaves(ctx: TaskContext):
        contexts.append(ctx)
        if saves:
            await ctx.checkpoint.save("begun")
        return "done"

    async with running(worker, orchestrator, state_dir=state):
        await orchestrator.submit("leaves").done()
        await until(lambda: not files_below(state / CHECKPOINTS))
        assert not await contexts[0].checkpoint.save("too late", now=True)
        assert not await asyncio.to_thread(lambda: bool(contexts[0].checkpoint.save("too late", now=True)))
        assert await contexts[0].checkpoint.load() is None
    assert not files_below(state / CHECKPOINTS)
    assert len(actions(caplog, "checkpoint_failed")) == 2


async def test_a_task_handed_out_again_while_its_checkpoint_is_written_is_answered_under_the_newest_id():
    first = Task(job_id="job", task_id="task-1", type="skill")
    running_task = SimpleNamespace(task=first, controls=SimpleNamespace())

    class Writing:
        used = True
        key = "key"

        async def settle(self, *, wanted):
            running_task.task = msgspec.structs.replace(first, task_id="task-2")

    running_task.controls.end_saving = Writing
    for outcome, checkpoint in ((Succeeded("success", {}), "key"), (from_exception(TransientError("again")), None)):
        result = build_result(first, outcome, "w1", seconds=0.0)
        settled = await with_checkpoint(running_task, result, outbox=None)
        assert (settled.task_id, settled.checkpoint) == ("task-2", checkpoint)


def test_a_state_that_is_not_valid_json_is_an_error():
    with pytest.raises(StateMismatchError, match="JSON"):
        State(Kind.JSON, b"{").read()
    with pytest.raises(StateMismatchError, match="JSON"):
        State(Kind.JSON, b"[" * 100_000).read()
