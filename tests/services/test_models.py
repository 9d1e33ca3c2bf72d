"""Models in a running worker: loaded once, shared, unloaded when others need the room, announced while loaded."""

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest

from avtomatika_worker import (
    InvalidInputError,
    ResourceError,
    SkillBlueprint,
    SkillDefinitionError,
    TaskContext,
    Worker,
)
from avtomatika_worker.testing import EmbeddedOrchestrator, WorkerHarness

MEBIBYTE = 2**20


class Model:
    """A model that knows its name, and whether it was unloaded."""

    def __init__(self, name: str, ballast: int = 0) -> None:
        self.name = name
        self.is_loaded = True
        self.ballast = bytearray(b"1" * ballast)


class Gate:
    """Lets tasks, or loads, go on when the test says so."""

    def __init__(self) -> None:
        self.arrived = asyncio.Queue()
        self.open = asyncio.Event()

    async def passed(self, what: str) -> None:
        self.arrived.put_nowait(what)
        await self.open.wait()


def worker_with(load, **options) -> Worker:
    """A worker whose skills return their model's name; ``hurry`` has little time."""
    worker = Worker(worker_type="test")
    worker.model(**options)(load)

    @worker.skill(model_from="name")
    async def use(name: str, model: Model) -> str:
        assert model.is_loaded
        return model.name

    @worker.skill(model_from="name", timeout=0.2)
    async def hurry(name: str, model: Model) -> str:
        return model.name

    return worker


async def handed_out(h, task):
    await h.orchestrator.wait_for(lambda: task.job.state.value == "running", timeout=10)


def actions(caplog, *wanted):
    return [(each.action, each.model) for each in caplog.records if getattr(each, "action", "") in wanted]


@pytest.fixture(autouse=True)
def log_level(caplog):
    caplog.set_level(logging.INFO, "avtomatika_worker")


def forget(model: Model) -> None:
    model.is_loaded = False


# ---------------------------------------------------------------------------------------------- loading


async def test_a_model_is_loaded_once_for_tasks_that_ask_at_the_same_time(caplog):
    loads = []

    def load(name: str) -> Model:
        loads.append((name, threading.current_thread().name))
        return Model(name)

    async with WorkerHarness(worker_with(load)) as h:
        results = await asyncio.gather(*(h.run("use", {"name": "a"}) for _ in range(5)))
        assert [each.data["result"] for each in results] == ["a"] * 5
        assert h.models == ("a",)
    assert [name for name, _ in loads] == ["a"]
    assert loads[0][1].startswith("model")
    assert actions(caplog, "model_loaded", "model_unloaded") == [("model_loaded", "a"), ("model_unloaded", "a")]


async def test_different_models_are_loaded_side_by_side():
    both = threading.Barrier(2, timeout=10)

    def load(name: str) -> Model:
        both.wait()
        return Model(name)

    async with WorkerHarness(worker_with(load, max_loaded=2)) as h:
        results = await asyncio.gather(*(h.run("use", {"name": each}) for each in "ab"))
        assert [each.data["result"] for each in results] == ["a", "b"]


async def test_a_load_that_fails_fails_its_tasks_and_the_next_one_tries_again(caplog):
    tries = []

    def load(name: str) -> Model:
        tries.append(name)
        if len(tries) == 1:
            raise OSError("the disk is gone")
        if name == "wrong":
            raise InvalidInputError("no such model")
        return Model(name)

    async with WorkerHarness(worker_with(load)) as h:
        result = await h.run("use", {"name": "a"})
        assert result.error.code == "TRANSIENT_ERROR"
        assert result.error.message == ("ModelLoadError: model 'a' cannot be loaded by load: OSError: the disk is gone")
        assert (await h.run("use", {"name": "a"})).data == {"result": "a"}
        result = await h.run("use", {"name": "wrong"})
        assert (result.error.code, result.error.message) == ("INVALID_INPUT_ERROR", "no such model")
    assert actions(caplog, "model_load_failed") == [("model_load_failed", "a"), ("model_load_failed", "wrong")]


async def test_an_error_that_cannot_be_read_fails_its_task_all_the_same():
    class Unreadable(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def load(name: str) -> Model:
        raise Unreadable

    async with WorkerHarness(worker_with(load)) as h:
        assert (await h.run("use", {"name": "a"})).error.code == "TRANSIENT_ERROR"


async def test_a_loader_that_runs_out_of_memory_is_reported_as_such():
    def load(name: str) -> Model:
        raise MemoryError("8 GiB for " + name)

    async with WorkerHarness(worker_with(load)) as h:
        assert (await h.run("use", {"name": "a"})).error.code == "RESOURCE_EXHAUSTED_ERROR"


def _raising_plain(error):
    def load(name: str) -> Model:
        raise error

    return load


def _raising_async(error):
    async def load(name: str) -> Model:
        raise error

    return load


def _raising_async_generator(error):
    async def load(name: str) -> AsyncIterator[Model]:
        raise error
        yield

    return load


@pytest.mark.parametrize("make", [_raising_plain, _raising_async, _raising_async_generator])
@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration()], ids=lambda it: repr(it)
)
async def test_a_loader_that_raises_a_base_exception_fails_only_its_tasks(make, error):
    async with WorkerHarness(worker_with(make(error))) as h:
        for _ in range(2):
            assert (await h.run("use", {"name": "a"})).error.code == "TRANSIENT_ERROR"


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_load_to_the_others():
    gate, loads = Gate(), []

    async def load(name: str) -> Model:
        loads.append(name)
        await gate.passed(name)
        return Model(name)

    async with WorkerHarness(worker_with(load)) as h:
        first = h.submit("use", {"name": "a"})
        await gate.arrived.get()
        second = h.submit("use", {"name": "a"})
        await handed_out(h, second)
        first.cancel()
        assert (await first.result()).status == "cancelled"
        gate.open.set()
        assert (await second.result()).data == {"result": "a"}
    assert loads == ["a"]


async def test_a_loader_that_hangs_costs_a_task_no_more_than_its_time(caplog):
    async def load(name: str) -> Model:
        if name == "hangs":
            await asyncio.Event().wait()
        return Model(name)

    async with WorkerHarness(worker_with(load, max_loaded=2)) as h:
        assert (await h.run("hurry", {"name": "hangs"})).error.code == "TIMEOUT_ERROR"
        assert (await h.run("use", {"name": "a"})).data == {"result": "a"}
    assert actions(caplog, "model_wait_ended") == [("model_wait_ended", "hangs")]


# ---------------------------------------------------------------------------------------------- unloading


async def test_the_model_used_least_recently_makes_room(caplog):
    async with WorkerHarness(worker_with(_plain, max_loaded=2, unload=forget)) as h:
        for name in "abac":
            assert (await h.run("use", {"name": name})).ok
        assert h.models == ("a", "c")
        assert actions(caplog, "model_unloaded") == [("model_unloaded", "b")]


def _plain(name: str) -> Model:
    return Model(name)


async def test_a_model_in_use_stays_and_a_task_waits_until_it_is_free():
    gate = Gate()
    worker = worker_with(_plain, unload=forget)

    @worker.skill(model_from="name")
    async def hold(name: str, model: Model) -> bool:
        await gate.passed(name)
        return model.is_loaded

    async with WorkerHarness(worker) as h:
        holds = h.submit("hold", {"name": "a"})
        await gate.arrived.get()
        late = await h.run("hurry", {"name": "b"})
        assert late.error.code == "TIMEOUT_ERROR", "the task's time bounds the wait for room"
        waits = h.submit("use", {"name": "b"})
        await handed_out(h, waits)
        assert (await h.run("use", {"name": "a"})).data == {"result": "a"}
        gate.open.set()
        assert (await holds.result()).data == {"result": True}
        assert (await waits.result()).data == {"result": "b"}


async def test_a_skill_that_was_given_up_still_uses_its_model():
    entered, leave, seen = threading.Event(), threading.Event(), []
    worker = worker_with(_plain, unload=forget)

    @worker.skill(model_from="name", timeout=0.2, cancel_grace=0.1)
    def stuck(name: str, model: Model) -> None:
        entered.set()
        leave.wait(20)
        seen.append(model.is_loaded)

    async with WorkerHarness(worker) as h:
        given_up = await h.run("stuck", {"name": "a"})
        assert given_up.error.code == "TIMEOUT_ERROR"
        assert entered.is_set()
        waits = h.submit("use", {"name": "b"})
        await handed_out(h, waits)
        assert h.models == ("a",)
        leave.set()
        assert (await waits.result()).data == {"result": "b"}
    assert seen == [True]


async def test_a_skill_that_is_still_running_when_the_worker_ends_keeps_its_model(caplog):
    entered, leave, ended, seen = threading.Event(), threading.Event(), threading.Event(), []
    worker = worker_with(_plain, unload=forget)

    @worker.skill(model_from="name", cancel_grace=0.1)
    def stuck(name: str, model: Model) -> None:
        entered.set()
        leave.wait(20)
        seen.append(model.is_loaded)
        ended.set()

    async with WorkerHarness(worker) as h:
        h.submit("stuck", {"name": "a"})
        await asyncio.to_thread(entered.wait, 10)
    leave.set()
    await asyncio.to_thread(ended.wait, 10)
    assert seen == [True]
    assert actions(caplog, "model_left", "model_unloaded") == [("model_left", "a")]


async def test_a_generator_has_its_model_until_its_last_chunk():
    worker = worker_with(_plain, unload=forget)
    gate = Gate()

    @worker.skill(model_from="name")
    async def stream(name: str, model: Model) -> AsyncIterator[bool]:
        yield model.is_loaded
        await gate.passed(name)
        yield model.is_loaded

    async with WorkerHarness(worker) as h:
        streams = h.submit("stream", {"name": "a"})
        await gate.arrived.get()
        waits = h.submit("use", {"name": "b"})
        await handed_out(h, waits)
        gate.open.set()
        assert (await streams.result()).data == {"result": [True, True]}
        assert (await waits.result()).ok


async def test_what_is_measured_to_be_over_the_memory_goes():
    def load(name: str) -> Model:
        return Model(name, 80 * MEBIBYTE)

    async with WorkerHarness(worker_with(load, max_loaded=None, memory="100MiB")) as h:
        for name in "ab":
            assert (await h.run("use", {"name": name})).ok
        assert h.models == ("b",)


async def test_an_idle_model_is_unloaded_after_its_time(caplog):
    gone = threading.Event()

    def unload(model: Model) -> None:
        gone.set()

    async with WorkerHarness(worker_with(_plain, keep_alive=0.05, unload=unload)) as h:
        assert (await h.run("use", {"name": "a"})).ok
        assert await asyncio.to_thread(gone.wait, 10)


async def test_nothing_keeps_an_unloaded_model_in_memory():
    seen = []

    def load(name: str) -> Model:
        model = Model(name)
        model.cycle = model
        seen.append(weakref.ref(model))
        return model

    gc.disable()  # what is collected is so because it was unloaded
    try:
        async with WorkerHarness(worker_with(load)) as h:
            for name in "ab":
                assert (await h.run("use", {"name": name})).ok
            assert [each() is None for each in seen] == [True, False]
    finally:
        gc.enable()


def _generator(said):
    def load(name: str) -> Iterator[Model]:
        yield Model(name)
        said.append(name)

    return load


def _async_generator(said):
    async def load(name: str) -> AsyncIterator[Model]:
        async with asyncio.timeout(60):
            yield Model(name)
        said.append(name)

    return load


@pytest.mark.parametrize("make", [_generator, _async_generator])
async def test_a_generator_is_resumed_to_unload(make):
    said = []
    async with WorkerHarness(worker_with(make(said))) as h:
        for name in "ab":
            assert (await h.run("use", {"name": name})).data == {"result": name}
        assert said == ["a"]
    assert said == ["a", "b"]


async def test_a_hook_may_be_async_and_one_that_fails_is_logged_and_frees_the_room(caplog):
    said = []

    async def unload(model: Model) -> None:
        said.append(model.name)
        raise OSError("busy")

    async with WorkerHarness(worker_with(_plain, unload=unload)) as h:
        for name in "ab":
            assert (await h.run("use", {"name": name})).data == {"result": name}
        assert said == ["a"]
    failed = [each for each in caplog.records if getattr(each, "action", "") == "model_unload_failed"]
    assert [(each.model, each.exc_info[0]) for each in failed] == [("a", OSError), ("b", OSError)]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration()], ids=lambda it: repr(it))
async def test_a_hook_that_raises_a_base_exception_is_logged_and_frees_the_room(error, caplog):
    def unload(model: Model) -> None:
        raise error

    async with WorkerHarness(worker_with(_plain, unload=unload)) as h:
        for name in "ab":
            assert (await h.run("use", {"name": name})).data == {"result": name}
    assert actions(caplog, "model_unload_failed") == [("model_unload_failed", "a"), ("model_unload_failed", "b")]


# ---------------------------------------------------------------------------------------------- the start, the harness


async def test_models_are_warm_before_the_worker_registers():
    async with WorkerHarness(worker_with(_plain, max_loaded=2, warm_up=["a", "b"])) as h:
        assert sorted(h.models) == ["a", "b"]


async def test_a_model_that_cannot_be_warmed_up_stops_the_start():
    def load(name: str) -> Model:
        raise OSError("no such file")

    with pytest.raises(ResourceError, match=r"cannot warm up 'a': .*OSError: no such file"):
        async with WorkerHarness(worker_with(load, warm_up=["a"])):
            pass


async def test_a_test_puts_one_model_in_place_of_all():
    def load(name: str) -> Model:
        raise AssertionError("loaded")

    async with WorkerHarness(worker_with(load, warm_up=["x"]), resources={Model: Model("fake")}) as h:
        assert (await h.run("use", {"name": "a"})).data == {"result": "fake"}
        assert h.models == ()


async def test_blueprints_bring_models_and_a_default_names_one():
    blueprint = SkillBlueprint()

    @blueprint.model
    def load(name: str) -> Model:
        return Model(name)

    @blueprint.skill(model_from="name")
    def use(model: Model, name: str = "usual") -> str:
        return model.name

    worker = Worker(worker_type="test")
    worker.include_blueprint(blueprint)
    worker.include_blueprint(blueprint)
    async with WorkerHarness(worker) as h:
        assert (await h.run("use")).data == {"result": "usual"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "params.name"),
        ({"name": 3}, "params.name"),
        ({"name": ""}, "params.name: must name a model"),
        ({"name": "z"}, "params.name: must be one of 'a', 'b', not 'z'"),
    ],
)
async def test_a_task_that_names_no_model_fails_before_anything_is_loaded(params, message):
    worker = worker_with(_plain, names=["a", "b"])

    @worker.skill(model_from="name")
    def untyped(params: dict, model: Model) -> str:
        return model.name

    async with WorkerHarness(worker) as h:
        for skill in ("use", "untyped"):
            result = await h.run(skill, params)
            assert result.error.code == "INVALID_INPUT_ERROR"
            assert message in result.error.message
        assert h.models == ()


# ---------------------------------------------------------------------------------------------- announcing


async def test_a_skill_is_hot_while_a_model_of_its_is_loaded():
    async with WorkerHarness(worker_with(_plain)) as h:
        record = h.orchestrator.workers["test-worker"]
        assert not record.last_heartbeat.get("hot_skills")
        assert (await h.run("use", {"name": "a"})).ok
        await h.orchestrator.wait_for(
            lambda: sorted(record.last_heartbeat.get("hot_skills") or ()) == ["hurry", "use"], timeout=10
        )


async def test_up_to_1_0b8_the_names_of_models_are_in_the_hot_cache():
    worker = worker_with(_plain, names=["a", "b"], announce="per_model")
    async with (
        EmbeddedOrchestrator(version="1.0b7", max_attempts=1) as orchestrator,
        WorkerHarness(worker, orchestrator=orchestrator) as h,
    ):
        record = h.orchestrator.workers["test-worker"]
        assert (await h.run("use", {"name": "a"})).ok
        await orchestrator.wait_for(lambda: record.last_heartbeat.get("hot_cache") == ["a"], timeout=10)
        assert record.last_heartbeat["skill_dependencies"] == {
            f"{skill}--{name}": [name] for skill in ("hurry", "use") for name in "ab"
        }


async def test_the_embedded_orchestrator_prefers_the_worker_that_has_the_model_loaded():
    async with EmbeddedOrchestrator(max_attempts=1) as orchestrator:
        workers = [worker_with(_plain, names=["a", "b"], announce="per_model", warm_up=[name]) for name in "ab"]
        ids = ["has-a", "has-b"]
        one, two = (
            WorkerHarness(each, orchestrator=orchestrator, settings={"worker_id": worker_id})
            for each, worker_id in zip(workers, ids, strict=True)
        )
        async with one, two:
            await orchestrator.wait_for(
                lambda: all(f"use--{each[-1]}" in orchestrator.workers[each].hot for each in ids), timeout=10
            )
            for name in "abbabaab":
                # Both wait for a task, so that the orchestrator has a choice.
                await orchestrator.wait_for(lambda: all(orchestrator.workers[each].polls for each in ids), timeout=10)
                job = orchestrator.submit(f"use--{name}", {})
                await job.done(timeout=10)
                assert (job.result, job.worker_id) == ({"result": name}, f"has-{name}")
            assert (one.models, two.models) == (("a",), ("b",))


async def test_a_skill_is_announced_for_each_model_and_runs_with_that_one():
    worker = worker_with(_plain, max_loaded=1, names=["org/a-v1.5", "b"], announce="per_model")

    @worker.skill(model_from="name")
    def show(ctx: TaskContext, params: dict, model: Model) -> list:
        return [ctx.skill, params, model.name]

    names = ["use", "hurry", "show"]
    assert worker.skills.names() == tuple(names)
    async with WorkerHarness(worker) as h:
        announced = [f"{skill}--{model}" for skill in names for model in ("org-a-v1-5", "b")]
        assert worker.skills.names() == (*names, *announced)
        schema = worker.skills.get("use--b").contract.input_schema
        assert schema["properties"] == {"name": {"type": "string", "enum": ["b"], "default": "b"}}
        assert "required" not in schema
        assert (await h.run("use--org-a-v1-5")).data == {"result": "org/a-v1.5"}
        assert (await h.run("show--b")).data == {"result": ["show--b", {"name": "b"}, "b"]}
        refused = await h.run("use--b", {"name": "org/a-v1.5"})
        assert refused.error.code == "INVALID_INPUT_ERROR"
        assert "must be one of 'b'" in refused.error.message
        record = h.orchestrator.workers["test-worker"]
        hot = ["hurry", "hurry--b", "show", "show--b", "use", "use--b"]
        await h.orchestrator.wait_for(lambda: sorted(record.last_heartbeat["hot_skills"]) == hot, timeout=10)


async def test_a_limit_counts_the_tasks_of_a_skill_under_all_its_names():
    gate, running = Gate(), []
    worker = worker_with(_plain, max_loaded=2, names=["a", "b"], announce="per_model")

    @worker.skill(model_from="name", max_concurrent=1)
    async def alone(name: str, model: Model) -> int:
        running.append(name)
        await gate.passed(name)
        running.remove(name)
        return len(running)

    async with WorkerHarness(worker) as h:
        tasks = [h.submit(each) for each in ("alone--a", "alone--b")]
        await gate.arrived.get()
        await h.run("use", {"name": "b"})
        assert len(running) == 1
        gate.open.set()
        assert [(await each.result()).data for each in tasks] == [{"result": 0}] * 2


# ---------------------------------------------------------------------------------------------- definitions


class Other: ...


def _needs_more(name: str, size: int) -> Model: ...


def _needs_other(name: Other) -> Model: ...


def _takes_nothing() -> Model: ...


def _by_keyword(*, name: str) -> Model: ...


def _says_nothing(name: str): ...


def _yields(name: str) -> Iterator[Model]:
    yield Model(name)


@pytest.mark.parametrize(
    ("load", "options", "problem"),
    [
        (_needs_more, {}, "takes one argument, the model's name"),
        (_takes_nothing, {}, "takes one argument, the model's name"),
        (_by_keyword, {}, "takes one argument, the model's name"),
        (_needs_other, {}, "its argument 'name' is the model's name, a str, not a Other"),
        (_says_nothing, {}, "it needs a return annotation"),
        (_yields, {"unload": forget}, "leave out unload="),
        (_plain, {"max_loaded": 0}, "max_loaded must be a positive integer, or None"),
        (_plain, {"max_loaded": True}, "max_loaded must be a positive integer, or None"),
        (_plain, {"max_loaded": None}, "max_loaded=None needs memory, keep_alive or names"),
        (_plain, {"memory": "8 gigs"}, "memory must be a positive number of bytes, or a text such as '8GiB'"),
        (_plain, {"memory": -1}, "memory must be a positive number of bytes"),
        (_plain, {"keep_alive": "soon"}, "keep_alive must be a number of seconds, or a text such as '10m'"),
        (_plain, {"keep_alive": float("nan")}, "keep_alive must be a number of seconds"),
        (_plain, {"unload": 3}, "unload must be a function that takes the model, not 3"),
        (_plain, {"warm_up": "ab"}, "warm_up must be a list of names, not 'ab'"),
        (_plain, {"warm_up": ["a", "b"]}, "warm_up has 2 names, more than max_loaded=1"),
        (_plain, {"warm_up": ["c"], "names": ["a"]}, "warm_up: 'c' must be among the names (a)"),
        (_plain, {"names": ["a", "a"]}, "names has 'a' twice"),
        (_plain, {"names": [""]}, "a name is a text of 1 to 1000 characters, not ''"),
        (_plain, {"announce": "all"}, "announce must be 'per_model' or None, not 'all'"),
        (_plain, {"announce": "per_model"}, "announce='per_model' needs names"),
        (_plain, {"max_load": 2}, "there is no option 'max_load' (options are: max_loaded"),
    ],
)
def test_an_invalid_loader_is_refused(load, options, problem):
    with pytest.raises(ResourceError) as caught:
        Worker(worker_type="test").model(**options)(load)
    assert problem in str(caught.value)


def test_a_type_belongs_to_one_loader_or_resource():
    worker = Worker(worker_type="test")
    worker.model(_plain)

    def other(name: str) -> Model: ...

    with pytest.raises(ResourceError, match=r"Model is made twice, by .*_plain and .*other"):
        worker.model(other)
    with pytest.raises(ResourceError, match="Model is"):

        @worker.resource
        def resource() -> Model: ...


def _skill_problem(options, func, **of_model):
    worker = Worker(worker_type="test")
    worker.model(**of_model)(_plain)

    @worker.model
    def others(name: str) -> Other: ...

    def register() -> None:
        worker.skill("s", **options)(func)
        worker.skills.freeze()

    with pytest.raises(SkillDefinitionError) as caught:
        register()
    return str(caught.value)


def test_a_skill_that_cannot_have_its_model_is_refused():
    def takes(name: str, model: Model) -> str: ...

    def takes_none(name: str) -> str: ...

    def takes_two(name: str, model: Model, other: Other) -> str: ...

    assert "its argument of type Model needs model_from='…'" in _skill_problem({}, takes)
    assert "no argument has the type of a model (those are: Model, Other)" in _skill_problem(
        {"model_from": "name"}, takes_none
    )
    assert "its input has no such field (name)" in _skill_problem({"model_from": "nome"}, takes)
    assert "it takes several models (Model, Other)" in _skill_problem({"model_from": "name"}, takes_two)
    assert "model_from must be the name of a param, not 3" in _skill_problem({"model_from": 3}, takes)
    assert "did you mean 'model_from'?" in _skill_problem({"modelfrom": "name"}, takes)
    per_model = {"announce": "per_model", "names": ["a.b", "a b"]}
    assert "its models 'a.b' and 'a b' are both announced as 's--a-b'" in _skill_problem(
        {"model_from": "name"}, takes, **per_model
    )
    per_model["names"] = ["x" * 130]
    assert "is over 128 characters" in _skill_problem({"model_from": "name"}, takes, **per_model)
    per_model["names"] = ["a"]
    assert "announce='per_model' is not for executor='process'" in _skill_problem(
        {"model_from": "name", "executor": "process"}, takes, **per_model
    )


def test_a_skill_may_not_have_the_name_that_another_is_announced_by():
    worker = worker_with(_plain, names=["a"], announce="per_model")

    @worker.skill("use--a")
    def taken() -> None: ...

    with pytest.raises(SkillDefinitionError, match="the name is taken: skill 'use' is announced so for 'a'"):
        worker.skills.freeze()
