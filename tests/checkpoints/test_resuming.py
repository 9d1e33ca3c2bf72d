"""A task that fails in a way that is retried goes on where it was, in every executor, at whatever worker."""

import asyncio
import collections
import decimal
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from avtomatika_worker import TaskContext, TransientError, Worker
from avtomatika_worker.checkpoints.saved_state import check_restorable, plain
from avtomatika_worker.devserver import JobState
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


async def until(condition):
    """Wait for what changes on the disk, which nobody announces."""
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


def files_below(directory):
    """Return the files; a directory that is removed meanwhile has none (`rglob` would raise)."""
    return [Path(parent) / name for parent, _, names in os.walk(directory) for name in names]


@pytest.mark.parametrize("interval", [0.0, 3600.0])
async def test_another_attempt_goes_on_where_the_last_one_was(orchestrator, tmp_path, interval):
    state = tmp_path / "state"
    params = {name: {"log": str(tmp_path / name), "flag": str(tmp_path / f"{name}.flag"), "at": 6} for name in SKILLS}
    async with running(apps.worker, orchestrator, state_dir=state, checkpoint_interval=interval):
        for job in [orchestrator.submit(skill, params[skill]) for skill in SKILLS]:
            await job.done(60)
            assert job.result == {"done": 10, "sum": 45}, job.skill
            assert job.attempts == 2, job.skill
            steps = (tmp_path / job.skill).read_text().split()
            assert steps == [str(step) for step in range(10)], f"{job.skill}: each step is done once"
        await until(lambda: not files_below(state / "checkpoints"))


async def test_another_worker_goes_on(orchestrator, tmp_path):
    """Once with the first worker shut down in the middle."""
    state, log, flag = tmp_path / "state", tmp_path / "log", tmp_path / "flag"
    params = {"log": str(log), "flag": str(flag), "at": -1, "steps": 40, "seconds": 0.05}
    settings = {"state_dir": state, "checkpoint_interval": 3600.0, "shutdown_timeout": 0.0}
    async with running(apps.worker, orchestrator, **settings):
        job = orchestrator.submit("loop_on_loop", params)
        await until(lambda: log.exists() and len(log.read_text().split()) > 5)
    done = len(log.read_text().split())
    assert done < 40
    async with running(apps.worker, orchestrator, worker_id="w2", **settings):
        await job.done()
    assert job.result == {"done": 40, "sum": sum(range(40))}
    steps = [int(each) for each in log.read_text().split()]
    assert steps == list(range(40)), "what was being done when the first worker ended is not counted"


async def test_a_loop_in_a_plain_def_ends_between_two_items_when_its_task_is_cancelled(orchestrator, tmp_path):
    log = tmp_path / "log"
    params = {"log": str(log), "flag": str(tmp_path / "flag"), "at": -1, "steps": 10_000, "seconds": 0.02}
    async with running(apps.worker, orchestrator, state_dir=tmp_path / "state"):
        job = orchestrator.submit("loop_in_thread", params)
        await until(log.exists)
        orchestrator.cancel(job.job_id)
        await job.done()
        await until(lambda: not files_below(tmp_path / "state" / "checkpoints"))


# ---------------------------------------------------------------------------------------------------- loops


@pytest.fixture
def worker():
    return Worker(worker_type="test")


async def outcome_of(orchestrator, worker, state, skill):
    """Return the job of a skill that is to fail or succeed at once."""
    async with running(worker, orchestrator, state_dir=state):
        return await orchestrator.submit(skill).done()


@dataclass
class Sums:
    total: int = 0
    squares: int = 0


async def test_the_state_of_a_loop_may_be_of_any_type_and_several_loops_have_names(orchestrator, worker, tmp_path):
    begun = []

    @worker.skill
    async def two_loops(ctx: TaskContext):
        first = ctx.resumable(range(5), state=Sums())
        async for number in first:
            first.state.total += number
            first.state.squares += number**2
        second = ctx.resumable("abc", state=0, name="letters")
        async for letter in second:
            begun.append(letter)
            if letter == "c" and begun.count("c") == 1:
                raise TransientError("once")
            second.state += 1
        return {"first": first.state, "second": second.state}

    job = await outcome_of(orchestrator, worker, tmp_path, "two_loops")
    assert job.result == {"first": {"total": 10, "squares": 30}, "second": 3}
    assert begun == ["a", "b", "c", "c"]


@dataclass
class Seen:
    pairs: set[tuple[int, int]] = field(default_factory=set)
    by_number: dict[int, int] = field(default_factory=dict)


async def test_the_keys_and_tuples_of_a_typed_state_come_back_and_an_int_may_become_a_float(
    orchestrator, worker, tmp_path
):
    attempts = []

    @worker.skill
    async def sums(ctx: TaskContext):
        attempts.append([])
        loop, total = ctx.resumable([1, 2], state=Seen()), ctx.resumable([1, 2], state=0, name="total")
        async for number in loop:
            attempts[-1].append(number)
            loop.state.pairs.add((number, number))
            loop.state.by_number[number] = number
        async for number in total:
            attempts[-1].append(number)
            total.state += number / 2
        if len(attempts) == 1:
            raise TransientError("once")
        return {"typed": loop.state == Seen({(1, 1), (2, 2)}, {1: 1, 2: 2}), "total": total.state}

    job = await outcome_of(orchestrator, worker, tmp_path, "sums")
    assert job.result == {"typed": True, "total": 1.5}
    assert attempts == [[1, 2, 1, 2], []]


@dataclass
class Untyped:
    seen: list[Any]


@dataclass
class Nested:
    parts: list[Untyped]


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"counts": {5: 1}}, "$.counts is {5: 1}"),
        ({"seen": [[(1, 2)]]}, "$.seen[0][0] is (1, 2)"),
        ({"total": decimal.Decimal("1.5")}, "$.total is Decimal"),
        ({"by_host": collections.Counter("a")}, "$.by_host is Counter"),
        (collections.Counter({5: 1}), "$ is Counter"),
        ({(1, 2)}, "no set"),
        (Untyped([(1, 2)]), "$.seen[0] is (1, 2)"),
        (Nested([Untyped([1]), Untyped([{"a": [3, (1, 2)]}])]), "$.parts[1].seen[0].a[1] is (1, 2)"),
    ],
    ids=str,
)
def test_a_state_that_would_come_back_as_another_is_refused_at_once(state, where):
    with pytest.raises(TypeError, match="another one after a restart") as found:
        check_restorable(plain(state), state, type(state))
    assert where in str(found.value)


@pytest.mark.parametrize(
    "state",
    [
        {"loss": math.nan, "most": math.inf},
        Sums(1, 2),
        Untyped([math.nan, {"a": 2**70}]),
        Nested([Untyped(["a", None, True]), Untyped([{"b": [0.5]}])]),
        [1, 0.5],
        None,
    ],
)
def test_a_state_that_comes_back_as_it_is_is_taken(state):
    content = json.loads(json.dumps(plain(state)))
    check_restorable(content, state, type(state))


def test_a_state_that_has_become_another_type_is_refused():
    with pytest.raises(TypeError, match="it is no int any more"):
        check_restorable([1], [1], int)


async def test_a_loop_over_other_items_begins_at_the_first(orchestrator, worker, tmp_path, caplog):
    seen = []

    @worker.skill
    async def loop(ctx: TaskContext):
        attempt = len(seen)
        seen.append([])
        async for item in ctx.resumable(range(3 + attempt)):
            seen[attempt].append(item)
        if not attempt:
            raise TransientError("once")

    await outcome_of(orchestrator, worker, tmp_path, "loop")
    assert seen == [[0, 1, 2], [0, 1, 2, 3]]
    assert "a loop over 3 items" in caplog.text


MISTAKES = {
    "two loops of one name": "has a resumable loop",
    "both ways": "not by both",
    "for in async def": "async for",
    "a state that is no JSON": "JSON or bytes",
    "a state with numbers as keys": "$ is {5: 1}, and would be {'5': 1}",
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_mistakes_say_what_is_wrong(orchestrator, worker, tmp_path, mistake):
    @worker.skill
    async def wrong(ctx: TaskContext):
        match mistake:
            case "two loops of one name":
                ctx.resumable([1])
                ctx.resumable([2])
            case "both ways":
                ctx.resumable([1])
                await ctx.checkpoint.save(1)
            case "for in async def":
                for _ in ctx.resumable([1]):
                    pass
            case "a state with numbers as keys":
                async for _ in ctx.resumable([1], state={5: 1}):
                    pass
            case _:
                async for _ in ctx.resumable([1], state=object()):
                    pass

    job = await outcome_of(orchestrator, worker, tmp_path, "wrong")
    assert MISTAKES[mistake] in job.error["message"]


@pytest.mark.parametrize("by", ["skill", "middleware"])
async def test_work_is_recognized_whatever_was_done_to_its_params(orchestrator, worker, tmp_path, by):
    found = []

    async def begin(ctx: TaskContext):
        ctx.params["seen"] = len(found)
        found.append(await ctx.checkpoint.load())
        await ctx.checkpoint.save(f"attempt {len(found)}")
        if len(found) < 3:
            raise TransientError("again")

    @worker.skill("skill")
    async def changes_its_params(params: dict[str, Any], ctx: TaskContext):
        await begin(ctx)

    @worker.skill("middleware")
    async def sees_no_context(params: dict[str, Any]):
        """Leave it all to the middleware."""

    async def around(ctx, call_next):
        await begin(ctx)
        return await call_next(ctx)

    if by == "middleware":
        worker.add_middleware(around)
    async with running(worker, orchestrator, state_dir=tmp_path):
        job = await orchestrator.submit(by, {"text": "x"}).done()
    assert job.state is JobState.FINISHED
    assert found == [None, "attempt 1", "attempt 2"]
