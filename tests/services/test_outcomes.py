"""What ends a task, wherever its skill runs: the outcome, and the one log record of it."""

import asyncio
import functools
import logging
from pathlib import Path

import pytest

from avtomatika_worker import ConfigError, Failed, PermanentError, Succeeded, Worker
from avtomatika_worker.observability.log_context import TaskContextFilter
from avtomatika_worker.testing import WorkerHarness
from services.conftest import running


def ends(caplog):
    return [each for each in caplog.records if getattr(each, "action", "") in {"task_failed", "task_finished"}]


@pytest.fixture(autouse=True)
def log_level(caplog):
    caplog.set_level("INFO", "avtomatika_worker")
    context = TaskContextFilter()
    caplog.handler.addFilter(context)
    yield
    caplog.handler.removeFilter(context)  # the handler is that of other tests, too


async def later():
    return {"late": True}


# ---------------------------------------------------------------------------------------------- what skills return


def plain_generator(params: dict):
    return (each for each in [1])


async def async_generator_from_async(params: dict):
    async def numbers():
        yield 1

    return numbers()


async def forgotten_await(params: dict):
    return later()


def future(params: dict):
    loop = asyncio.new_event_loop()
    loop.close()
    return asyncio.Future(loop=loop)


def lazy_map(params: dict):
    return {"items": map(str, [1])}


def own_class(params: dict):
    return {"model": Worker}


def own_function(params: dict):
    return {"made": caller}


def caller():
    """Stand for a function that was meant to be called."""


@pytest.mark.parametrize(
    ("func", "kind", "remedy"),
    [
        (plain_generator, "generator", "turn it into a list"),
        (async_generator_from_async, "async_generator", "async for"),
        (forgotten_await, "coroutine", "await it"),
        (future, "Future", "await it"),
        (lazy_map, "map", "turn it into a list"),
        (own_class, "the class Worker", "return an instance of it"),
        (own_function, "function", "call it"),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
async def test_a_value_that_is_not_json_is_a_permanent_failure_that_names_it_and_the_remedy(
    func, kind, remedy, orchestrator
):
    worker = Worker()
    worker.skill("it")(func)
    async with WorkerHarness(worker, orchestrator=orchestrator) as h:  # one that tries again
        task = h.submit("it")
        result = await task.result()
    assert result.error.code == "CONTRACT_VIOLATION_ERROR"
    assert kind in result.error.message
    assert remedy in result.error.message
    assert task.job.attempts == 1


async def test_keys_that_are_the_same_in_json_are_a_contract_violation(orchestrator):
    worker = Worker()

    @worker.skill
    async def count():
        return {"counts": {1: "a", "1": "b"}}

    async with WorkerHarness(worker, orchestrator=orchestrator) as h:
        result = await h.run("count")
    assert result.error.code == "CONTRACT_VIOLATION_ERROR"
    assert all(each in result.error.message for each in ("$.counts", "keys 1 and '1'"))


@pytest.mark.parametrize("wrapped", [lambda params: later(), functools.partial(lambda what, params: what(), later)])
async def test_a_plain_function_around_an_async_one_is_awaited(wrapped):
    worker = Worker()
    worker.skill("it")(wrapped)
    async with WorkerHarness(worker) as h:
        assert (await h.run("it")).data == {"late": True}


# ---------------------------------------------------------------------------------------------- middlewares


async def forgets(ctx, call_next):
    await call_next(ctx)


async def forgets_to_await(ctx, call_next):
    return call_next(ctx)


async def returns_text(ctx, call_next):
    await call_next(ctx)
    return "done"


class Forgets:
    async def __call__(self, ctx, call_next):
        await call_next(ctx)


@pytest.mark.parametrize(
    ("middleware", "name", "what"),
    [
        (forgets, "test_outcomes.forgets", "returned None"),
        (Forgets(), "test_outcomes.Forgets", "returned None"),
        (functools.partial(forgets), "test_outcomes.forgets", "returned None"),
        (forgets_to_await, "test_outcomes.forgets_to_await", "a coroutine"),
        (returns_text, "test_outcomes.returns_text", "type str"),
    ],
    ids=["None", "object", "partial", "coroutine", "text"],
)
async def test_a_middleware_that_returns_no_outcome_fails_the_task_by_its_name(middleware, name, what, orchestrator):
    worker, seen = Worker(), []

    @worker.add_middleware
    async def outer(ctx, call_next):
        seen.append(await call_next(ctx))
        return seen[-1]

    worker.add_middleware(middleware)

    @worker.skill
    async def fails():
        raise ValueError("this must not end as a success")

    async with WorkerHarness(worker, orchestrator=orchestrator) as h:
        task = h.submit("fails")
        result = await task.result()
    assert result.error.code == "CONTRACT_VIOLATION_ERROR"
    assert name in result.error.message
    assert what in result.error.message
    assert task.job.attempts == 1
    assert isinstance(seen[0], Failed)  # a failure is an outcome, for the middlewares outside as well


def plain(ctx, call_next):
    return call_next(ctx)


@functools.wraps(forgets)
def decorated(ctx, call_next):
    return forgets(ctx, call_next)


def test_only_what_can_be_awaited_is_a_middleware():
    for refused, why in ((plain, "async def"), (lambda ctx, call_next: None, "async def"), (Forgets, "it is a class")):
        with pytest.raises(ConfigError, match=why):
            Worker().add_middleware(refused)
    for taken in (forgets, Forgets(), functools.partial(forgets), Forgets().__call__, decorated):
        Worker().add_middleware(taken)


async def test_a_dict_of_a_middleware_is_read_as_a_skills_is():
    worker, seen = Worker(), []

    @worker.add_middleware
    async def outer(ctx, call_next):
        seen.append(type(await call_next(ctx)))
        return {"status": ctx.params["outer"], "data": {"by": "outer"}}

    @worker.add_middleware
    async def inner(ctx, call_next):
        return {"status": "failure", "error": "no", "more": 1}

    @worker.skill(output_statuses=["needs_review"])
    async def never(params: dict):
        raise AssertionError

    async with WorkerHarness(worker) as h:
        result = await h.run("never", {"outer": "needs_review"})
        assert (result.status, result.data) == ("needs_review", {"by": "outer"})
        refused = await h.run("never", {"outer": "reviewed"})
    assert refused.error.code == "CONTRACT_VIOLATION_ERROR"
    assert "needs_review" in refused.error.message
    assert seen == [Failed, Failed]


async def test_a_middleware_cannot_make_up_a_status():
    worker = Worker()

    @worker.add_middleware
    async def odd(ctx, call_next):
        return Succeeded({}, "bogus")

    @worker.skill
    async def fine():
        return {}

    async with WorkerHarness(worker) as h:
        assert (await h.run("fine")).error.code == "CONTRACT_VIOLATION_ERROR"


async def puts_in(ctx, call_next):
    outcome = await call_next(ctx)
    outcome.data["model"] = object()
    return outcome


async def makes(ctx, call_next):
    return Succeeded({"model": object()})


async def makes_costs(ctx, call_next):
    return Succeeded({}, costs={"model": object()})


async def returns_dict(ctx, call_next):
    return {"model": object()}


@pytest.mark.parametrize("middleware", [puts_in, makes, makes_costs, returns_dict])
async def test_a_middleware_that_adds_a_value_that_is_not_json_fails_only_its_task(middleware):
    worker, on = Worker(), [True]

    @worker.add_middleware
    async def sometimes(ctx, call_next):
        return await (middleware(ctx, call_next) if on else call_next(ctx))

    @worker.skill
    async def fine():
        return {"a": 1}

    async with WorkerHarness(worker) as h:
        result = await h.run("fine")
        on.clear()
        assert (await h.run("fine")).data == {"a": 1}
    assert result.error.code == "CONTRACT_VIOLATION_ERROR"
    assert "test_outcomes.test_a_middleware" in result.error.message
    assert "model: object is not JSON-able" in result.error.message


@pytest.mark.parametrize("executor", [None, "process"])
async def test_an_outcome_with_a_value_that_is_not_json_fails_only_its_task(executor):
    worker = Worker()
    worker.skill("makes", executor=executor)(outcome_of)
    async with WorkerHarness(worker) as h:
        broken = await h.run("makes", {"broken": True})
        assert (await h.run("makes", {"broken": False})).data == {"at": [1, 2]}
    assert broken.error.code == "CONTRACT_VIOLATION_ERROR"
    assert "$.data.at[0]: object is not JSON-able" in broken.error.message


def outcome_of(broken: bool):
    return Succeeded({"at": (object(),) if broken else (1, 2)})


@pytest.mark.parametrize("unsendable", [float("nan"), 2**70, "\ud800"], ids=["nan", "integer", "surrogate"])
async def test_a_failure_keeps_its_reason_whatever_it_carries(unsendable):
    worker = Worker()

    @worker.skill
    async def fails():
        error = {"code": "PERMANENT_ERROR", "message": "disk full", "details": {"disk": "sda"}}
        return {"status": "failure", "error": error, "data": {"done": [unsendable]}}

    async with WorkerHarness(worker) as h:
        result = await h.run("fails")
    assert result.error.code == "PERMANENT_ERROR"
    assert result.error.message.startswith("disk full (its other contents were dropped: ")
    assert "$.data.done[0]" in result.error.message
    assert result.error.details == {"disk": "sda"}
    assert result.data == {}


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


UNSENDABLE = {
    "nan": (float("nan"), "nan does not exist in JSON"),
    "infinity": ([1, {"a": float("-inf")}], "inf does not exist in JSON"),
    "integer": (2**70, "does not fit in 64 bits"),
    "integer beyond 64 bits by one": (-(2**63) - 1, "does not fit in 64 bits"),
    "float without a fraction": (1e20, "does not fit in 64 bits"),
    "surrogate": ("a\ud800", "lone surrogate"),
    "depth": (nested(40), "nested too deep"),
}


def untyped(params):
    return {"x": UNSENDABLE[params["which"]][0]}


async def untyped_later(params):
    return untyped(params)


@pytest.mark.parametrize("which", UNSENDABLE)
@pytest.mark.parametrize(
    ("skill", "executor"),
    [(untyped, None), (untyped_later, None), (untyped, "process")],
    ids=["thread", "loop", "process"],
)
async def test_a_result_that_no_orchestrator_can_read_is_logged_as_the_failure_it_becomes(
    which, skill, executor, caplog
):
    worker = Worker()
    worker.skill("returns", executor=executor)(skill)
    async with WorkerHarness(worker) as h:
        result = await h.run("returns", {"which": which})
    assert (result.status, result.error.code) == ("failure", "CONTRACT_VIOLATION_ERROR")
    assert result.error.message.startswith(("the result cannot be sent: $.", "the result cannot leave its process: $."))
    assert UNSENDABLE[which][1] in result.error.message
    assert [(each.action, each.code) for each in ends(caplog)] == [("task_failed", "CONTRACT_VIOLATION_ERROR")]


def fills_the_disk(params):
    with Path("/dev/full").open("wb") as full:
        full.write(b"x" * 10_000_000)


async def fills_the_disk_later(params):
    fills_the_disk(params)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full here")
@pytest.mark.parametrize(
    ("skill", "executor"),
    [
        (fills_the_disk, None),
        (fills_the_disk_later, None),
        (fills_the_disk, "process"),
        (fills_the_disk_later, "process"),
    ],
    ids=["thread", "loop", "process", "process's loop"],
)
async def test_a_full_disk_is_named_as_such_wherever_the_skill_runs(skill, executor):
    worker = Worker()
    worker.skill("fills", executor=executor)(skill)
    async with WorkerHarness(worker) as h:
        error = (await h.run("fills")).error
    assert (error.code, "No space left on device" in error.message) == ("RESOURCE_EXHAUSTED_ERROR", True)


async def test_a_number_that_json_cannot_represent_is_named_if_there_is_a_schema():
    worker = Worker()

    @worker.skill
    async def mean() -> float:
        return float("nan")

    async with WorkerHarness(worker) as h:
        assert "$.data.result: nan does not exist in JSON" in (await h.run("mean")).error.message


async def test_what_an_inner_middleware_raises_is_an_outcome_for_the_outer_ones():
    worker, seen = Worker(), []

    @worker.add_middleware
    async def outer(ctx, call_next):
        seen.append(await call_next(ctx))
        return seen[-1]

    @worker.add_middleware
    async def inner(ctx, call_next):
        raise PermanentError("closed")

    @worker.skill
    async def fine():
        return {}

    async with WorkerHarness(worker) as h:
        assert (await h.run("fine")).error.message == "closed"
    assert seen == [Failed("PERMANENT_ERROR", "closed")]


# ---------------------------------------------------------------------------------------------- the log


async def test_a_failure_is_one_record_with_its_ids_once_and_the_users_frames(caplog):
    worker = Worker()

    @worker.skill
    def fails():
        raise ValueError("the reason")

    async with WorkerHarness(worker) as h:
        task = h.submit("fails")
        await task.result()
    about = [each for each in caplog.records if "the reason" in each.getMessage()]
    (record,) = ends(caplog)
    assert about == [record]
    assert (record.levelname, record.action, record.skill) == ("WARNING", "task_failed", "fails")
    assert (record.status, record.code) == ("failure", "TRANSIENT_ERROR")
    assert (record.task_id, record.job_id) == (task.job.task_id, task.job.job_id)
    assert task.job.task_id not in record.getMessage()
    frames = [line for line in record.exc_text.splitlines() if line.startswith("  File ")]
    assert [line.rpartition(" ")[2] for line in frames] == ["fails"]


async def test_a_failure_that_was_foreseen_and_an_envelope_have_no_traceback(caplog):
    worker = Worker()

    @worker.skill
    async def says(how: str):
        if how == "raise":
            raise PermanentError("foreseen")
        return {"status": "failure", "error": "foreseen"}

    async with WorkerHarness(worker) as h:
        await h.run("says", {"how": "raise"})
        await h.run("says", {"how": "return"})
    assert [each.exc_text for each in ends(caplog)] == [None, None]
    assert [each.levelname for each in ends(caplog)] == ["WARNING", "WARNING"]


async def test_what_a_cancelled_skill_raises_is_in_the_one_record_of_its_end(caplog):
    worker = Worker()

    @worker.skill
    async def untidy(send_event):
        await send_event("started")
        try:
            await asyncio.sleep(60)
        finally:
            raise RuntimeError("while cleaning up")

    async with WorkerHarness(worker) as h:
        task = h.submit("untidy")
        await task.wait_for_event("started")
        task.cancel()
        await task.result()
    (record,) = ends(caplog)
    assert (record.action, record.status) == ("task_finished", "cancelled")
    assert "while cleaning up" in record.exc_text


async def test_a_success_is_one_line_too(caplog):
    worker = Worker()

    @worker.skill
    async def fine():
        return {}

    async with WorkerHarness(worker) as h:
        await h.run("fine")
    (record,) = ends(caplog)
    assert (record.levelno, record.action, record.status) == (logging.INFO, "task_finished", "success")


# ---------------------------------------------------------------------------------------------- before the log


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("returned", "path"),
    [
        ({"x": [{"deep": float("nan")}]}, "data.x[0].deep"),
        ({"x": 2**70}, "data.x"),
        ({"x": "\ud800"}, "data.x"),
        ({"x": nested(40)}, "data.x"),
        ({"status": "success", "data": {"ok": 1}, "metadata": {"x": float("inf")}}, "metadata.x"),
        ({"status": "success", "data": {"ok": 1}, "costs": {"tokens": 2**70}}, "costs.tokens"),
        (Succeeded({"x": [1e300]}), "data.x[0]"),
    ],
    ids=["NaN", "2**70", "surrogate", "deep", "metadata", "costs", "outcome"],
)
@pytest.mark.parametrize("watched", [False, True], ids=["alone", "with a middleware"])
async def test_a_result_that_cannot_be_sent_is_a_failure_before_the_log_says_how_it_ended(
    returned, path, watched, orchestrator, caplog
):
    worker = Worker()

    @worker.skill
    async def returns():
        return returned

    async def passes_on(ctx, call_next):
        return await call_next(ctx)

    if watched:
        worker.add_middleware(passes_on)
    async with running(worker, orchestrator):
        job = orchestrator.submit("returns", {}, metadata={"from": "a test"})
        await orchestrator.wait_for(lambda: job.state.final)
    assert job.error["code"] == "CONTRACT_VIOLATION_ERROR"
    assert f"$.{path}" in job.error["message"]
    ends = [each.action for each in caplog.records if getattr(each, "action", "") in {"task_finished", "task_failed"}]
    assert ends == ["task_failed"]


async def test_what_a_skill_changes_after_its_end_is_not_in_its_result(orchestrator):
    worker, kept = Worker(), {"numbers": [1]}

    @worker.skill
    async def returns_what_it_keeps():
        asyncio.get_running_loop().call_soon(kept["numbers"].append, 2)
        return kept

    async with running(worker, orchestrator):
        for expected in ([1], [1, 2]):
            job = orchestrator.submit("returns_what_it_keeps")
            await orchestrator.wait_for(lambda job=job: job.state.final)
            assert job.result == {"numbers": expected}
