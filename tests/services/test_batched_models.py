"""Batched skills that take a model: a batch has one, loaded once and held for its call."""

import asyncio
import threading

import pytest

from avtomatika_worker import Batch, InvalidInputError, TransientError, Worker
from avtomatika_worker.testing import WorkerHarness


class Model:
    def __init__(self, name: str) -> None:
        self.name = name
        self.is_loaded = True


def forget(model: Model) -> None:
    model.is_loaded = False


class Made:
    """A worker whose batched skill waits in its first call, so that what comes next is in batches that are full."""

    def __init__(self, load=Model, key=None, work=None, **options):
        self.arrived = 0
        self.change = asyncio.Event()
        self.key = key or (lambda params: None)
        self.loads: list[str] = []
        self.calls: list[tuple[str, list[int]]] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self.worker = Worker(worker_type="test")
        self.work = work or (lambda n, model: [f"{model.name}{each}" for each in n])

        @self.worker.model(**{"unload": forget, **options})
        def load_model(name: str) -> Model:
            self.loads.append(name)
            return load(name)

        @self.worker.skill(model_from="name", batch=Batch(max_size=8, key=self.arrive))
        def use(name: list[str], n: list[int], model: Model) -> list[str | Exception]:
            assert model.is_loaded
            assert set(name) == {model.name}
            self.calls.append((model.name, list(n)))
            self.entered.set()
            assert self.go.wait(20)
            assert model.is_loaded
            return self.work(n, model)

    def arrive(self, params):
        self.arrived += 1
        self.change.set()
        return self.key(params)

    async def fill(self, h, *tasks):
        """Run a task that holds the skill, then these; return them once they wait for it."""
        held = h.submit("use", {"name": "a", "n": 0})
        assert await asyncio.to_thread(self.entered.wait, 20)
        submitted = [h.submit(skill, params) for skill, params in tasks]
        async with asyncio.timeout(20):
            while self.arrived <= len(tasks):
                self.change.clear()
                await self.change.wait()
        return held, submitted

    async def results(self, h, *params):
        """Return the results of tasks that were in line together."""
        held, tasks = await self.fill(h, *(("use", {"name": name, "n": n}) for name, n in params))
        self.go.set()
        assert (await held.result()).ok
        return [await each.result() for each in tasks]


async def test_the_tasks_of_a_batch_name_one_model_which_is_loaded_once():
    made = Made(max_loaded=1)
    async with WorkerHarness(made.worker) as h:
        results = await made.results(h, ("b", 1), ("a", 2), ("b", 3), ("a", 4))
        assert [each.data["result"] for each in results] == ["b1", "a2", "b3", "a4"]
        assert h.models in {("a",), ("b",)}
    assert sorted((name, sorted(n)) for name, n in made.calls) == [("a", [0]), ("a", [2, 4]), ("b", [1, 3])]
    assert len(made.loads) in (2, 3)


async def test_a_key_divides_the_tasks_of_a_model_further():
    made = Made(max_loaded=2, key=lambda params: params["n"] % 2)
    async with WorkerHarness(made.worker) as h:
        await made.results(h, ("a", 1), ("a", 2), ("a", 3), ("a", 4))
    assert sorted(sorted(n) for _, n in made.calls[1:]) == [[1, 3], [2, 4]]


async def test_a_model_that_cannot_be_loaded_fails_the_tasks_of_its_batch_after_one_try():
    def load(name):
        if name == "bad":
            raise OSError("no such weights")
        if name == "busy":
            raise TransientError("the store is busy")
        return Model(name)

    made = Made(load, max_loaded=2)
    async with WorkerHarness(made.worker) as h:
        results = await made.results(h, ("bad", 1), ("a", 2), ("bad", 3), ("busy", 4), ("busy", 5))
    bad = "ModelLoadError: model 'bad' cannot be loaded by load_model: OSError: no such weights"
    assert [each.error and each.error.message for each in results] == [
        bad,
        None,
        bad,
        "the store is busy",
        "the store is busy",
    ]
    assert sorted(made.loads) == ["a", "bad", "busy"]


async def test_a_bad_task_fails_alone_and_the_model_stays_for_the_others():
    def work(n, model):
        if 3 in n:
            raise InvalidInputError("three")
        return [model.name for _ in n]

    made = Made(work=work, max_loaded=1)
    async with WorkerHarness(made.worker) as h:
        results = await made.results(h, *(("a", n) for n in range(1, 5)))
    assert [each.error and each.error.message for each in results] == [None, None, "three", None]
    assert made.loads == ["a"]


@pytest.mark.parametrize("name", [None, "", 5], ids=repr)
async def test_an_invalid_model_name_fails_only_its_own_task(name):
    worker = Worker(worker_type="test")

    @worker.model
    def load(name: str) -> Model:
        return Model(name)

    @worker.skill(model_from="name", batch=Batch())
    def use(params: list, model: Model) -> list:
        return [model.name for _ in params]

    async with WorkerHarness(worker) as h:
        good, bad = await h.run_many("use", [{"name": "a"}, {"name": name}])
    assert good.data == {"result": "a"}
    assert (bad.error.code, bad.error.details["path"]) == ("INVALID_INPUT_ERROR", "$.name")


def made_with_a_slow_load_of(slow):
    """Return what is made, an event that is set when that model is being loaded, and one that ends the load."""
    loading, go = threading.Event(), threading.Event()

    def load(name):
        if name == slow:
            loading.set()
            assert go.wait(20)
        return Model(name)

    return Made(load, max_loaded=2), loading, go


async def test_a_cancelled_task_leaves_the_load_to_the_others_of_its_batch():
    made, loading, go = made_with_a_slow_load_of("b")
    async with WorkerHarness(made.worker) as h:
        _, (one, other) = await made.fill(h, ("use", {"name": "b", "n": 1}), ("use", {"name": "b", "n": 2}))
        made.go.set()
        assert await asyncio.to_thread(loading.wait, 20)
        one.cancel()
        assert (await one.result()).status == "cancelled"
        go.set()
        assert (await other.result()).data == {"result": "b2"}
    assert made.calls[1:] == [("b", [2])]
    assert made.loads == ["a", "b"]


async def test_a_batch_whose_tasks_are_all_cancelled_waits_for_its_model_no_longer():
    made, loading, go = made_with_a_slow_load_of("b")
    made.go.set()
    async with WorkerHarness(made.worker) as h:
        waits = h.submit("use", {"name": "b", "n": 1})
        assert await asyncio.to_thread(loading.wait, 20)
        waits.cancel()
        assert (await waits.result()).status == "cancelled"
        assert (await h.run("use", {"name": "a", "n": 2})).data == {"result": "a2"}, "the skill is free again"
        go.set()
    assert made.calls == [("a", [2])]


async def test_skills_announced_for_each_model_share_their_batches_slots_and_line():
    made = Made(announce="per_model", names=["a", "b"], max_loaded=2)
    async with WorkerHarness(made.worker) as h:
        registration = h.orchestrator.workers["test-worker"].registration
        assert registration["resources"]["max_concurrent_tasks"] == 16
        assert {each["name"] for each in registration["supported_skills"]} == {"use", "use--a", "use--b"}
        wanted = ("use--a", {"n": 1}), ("use", {"name": "a", "n": 2}), ("use--b", {"n": 3})
        held, tasks = await made.fill(h, *wanted)
        made.go.set()
        assert [(await each.result()).data["result"] for each in (held, *tasks)] == ["a0", "a1", "a2", "b3"]
    assert sorted((name, sorted(n)) for name, n in made.calls[1:]) == [("a", [1, 2]), ("b", [3])]


async def test_a_model_given_by_a_test_is_used():
    made = Made()
    made.go.set()
    fake = Model("a")
    async with WorkerHarness(made.worker, resources={Model: fake}) as h:
        assert [each.data["result"] for each in await h.run_many("use", [{"name": "a", "n": n} for n in range(3)])] == [
            "a0",
            "a1",
            "a2",
        ]
    assert made.loads == []


async def test_a_batch_of_skills_announced_for_models_has_the_name_of_the_skill_that_they_stand_for():
    made = Made(announce="per_model", names=["a"], work=lambda n, model: None)
    made.go.set()
    async with WorkerHarness(made.worker) as h:
        result = await h.run("use--a", {"n": 1})
    assert result.error.message.startswith("the batched skill use returned NoneType")
