"""Resources: made once in each process that needs them, given by their types, closed in reverse order."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NewType

import pytest

from avtomatika_worker import ResourceError, SkillBlueprint, SkillDefinitionError, TaskContext, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.testing import WorkerHarness
from processes.conftest import gone, until


class Database:
    """What others need."""

    def __init__(self, name="real"):
        self.name = name


class Model:
    """What needs a database."""

    def __init__(self, database):
        self.database = database


@dataclass
class Config:
    """What could be the input of a skill."""

    name: str


class Other(Model):
    """Another one."""


@pytest.fixture
def journal(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    path.touch()
    monkeypatch.setenv("TEST_JOURNAL", str(path))
    return lambda: path.read_text("utf-8").splitlines()


def worker_with(log):
    """Make a worker of a plain, an async and two generating resources, in an order that needs sorting."""
    worker = Worker()

    @worker.resource
    def model(database: Database) -> Iterator[Model]:
        log.append("model made")
        yield Model(database)
        log.append("model closed")

    @worker.resource()
    async def database() -> AsyncIterator[Database]:
        log.append("database made")
        yield Database()
        log.append("database closed")

    @worker.skill
    async def on_loop(model: Model, n: int = 1) -> dict:
        return {"model": id(model), "database": model.database.name, "n": n}

    @worker.skill
    def in_thread(model: Model, database: Database, ctx: TaskContext) -> dict:
        same = model.database is database and ctx.resource(Model) is model
        return {"model": id(model), "same": same}

    return worker


async def test_a_resource_is_made_once_before_the_worker_registers_and_closed_in_reverse_order():
    log = []
    worker = worker_with(log)
    async with WorkerHarness(worker) as h:
        assert log == ["database made", "model made"]
        first = await h.run("on_loop", {"n": 3})
        second = await h.run("in_thread", {})
        assert first.data == {"model": second.data["model"], "database": "real", "n": 3}
        assert second.data["same"] is True
        registration = h.orchestrator.workers["test-worker"].registration
        (announced,) = [each for each in registration["supported_skills"] if each["name"] == "on_loop"]
        assert list(announced["input_schema"]["properties"]) == ["n"]
    assert log[2:] == ["model closed", "database closed"]
    async with WorkerHarness(worker):
        assert log[4:] == ["database made", "model made"]


async def test_plain_and_async_functions_return_resources_and_two_of_a_type_have_names_of_their_own():
    worker = Worker()
    Small = NewType("Small", Database)

    @worker.resource
    def plain() -> Database:
        return Database("plain")

    @worker.resource
    async def small() -> Small:
        return Small(Database("small"))

    @worker.skill
    async def names(one: Database, two: Small) -> dict:
        return {"names": [one.name, two.name]}

    async with WorkerHarness(worker) as h:
        assert (await h.run("names")).data == {"names": ["plain", "small"]}


async def test_a_resource_that_cannot_be_made_ends_the_start_and_closes_the_others(caplog):
    log = []
    worker = worker_with(log)

    @worker.resource
    async def other(database: Database) -> Other:
        raise FileNotFoundError("weights.bin is not there")

    harness = WorkerHarness(worker)
    with pytest.raises(ResourceError, match=r"resource 'other': cannot be created: FileNotFoundError: weights.bin"):
        await harness.start()
    assert log == ["database made", "model made", "model closed", "database closed"]
    assert not harness.orchestrator.requests


async def test_a_resource_that_fails_while_it_is_closed_is_reported_and_stops_no_other(caplog):
    log = []
    worker = worker_with(log)

    @worker.resource
    def other(model: Model) -> Iterator[Other]:
        yield Other(model.database)
        raise OSError("the disk is gone")

    async with WorkerHarness(worker):
        pass
    assert log[2:] == ["model closed", "database closed"]
    (failed,) = [each for each in caplog.records if getattr(each, "action", "") == "resource_close_failed"]
    assert (failed.resource, str(failed.exc_info[1])) == ("other", "the disk is gone")


async def test_a_generator_that_ends_or_goes_on_is_reported(caplog):
    worker = Worker()

    @worker.resource
    def other() -> Iterator[Other]:
        yield Other(None)
        yield Other(None)

    async with WorkerHarness(worker):
        pass
    assert "yielded a second time" in caplog.text
    worker = Worker()

    @worker.resource
    def nothing() -> Iterator[Other]:
        yield from ()

    with pytest.raises(ResourceError, match="its function ended without a yield"):
        await WorkerHarness(worker).start()


async def test_a_plain_resource_that_takes_long_does_not_block_the_loop_and_a_shutdown_ends_the_wait():
    worker, loop = Worker(), asyncio.get_running_loop()
    began, end = asyncio.Event(), asyncio.Event()

    @worker.resource
    def slow() -> Model:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(end.wait(), loop).result()
        return Model(None)

    settings = worker.load_settings({"ORCHESTRATOR_URL": "http://127.0.0.1:9", "WORKER_RESULT_DURABILITY": "off"})
    main = asyncio.create_task(worker.main(settings, health_check=False))
    await began.wait()
    worker.request_shutdown()
    await asyncio.wait_for(main, 10)
    end.set()


# ---------------------------------------------------------------------------------------------- definitions


def returns_nothing_known():
    return Model(None)


def returns_a_text() -> str:
    return ""


def returns_a_dict() -> dict[str, int]:
    return {}


def returns_one_or_none() -> Model | None:
    return None


def yields_but_says_it_returns() -> Model:
    yield Model(None)


@contextmanager
def is_a_context_manager() -> Iterator[Model]:
    yield Model(None)


def takes_what_has_no_type(database) -> Model:
    return Model(database)


def takes_anything(*databases: Database) -> Model:
    return Model(databases)


def gives_what_the_worker_gives() -> TaskContext:
    raise AssertionError


@pytest.mark.parametrize(
    ("func", "problem"),
    [
        (returns_nothing_known, "it needs a return annotation"),
        (returns_a_text, "str is not a distinct type"),
        (returns_a_dict, "dict is not a distinct type"),
        (returns_one_or_none, "is not a distinct type"),
        (yields_but_says_it_returns, "it yields, so it returns an Iterator"),
        (is_a_context_manager, "without contextmanager"),
        (takes_what_has_no_type, "the argument 'database' needs a type hint"),
        (takes_anything, "the argument *databases: .* cannot be filled"),
        (gives_what_the_worker_gives, "TaskContext is provided by the worker itself"),
    ],
)
def test_a_wrong_definition_is_refused_at_once(func, problem):
    with pytest.raises(ResourceError, match=problem.replace("*d", r"\*d")) as caught:
        Worker().resource(func)
    assert caught.value.resource == func.__name__


def test_two_resources_of_a_type_are_refused_with_both_places():
    worker = Worker()
    worker.resource(resource_one)
    with pytest.raises(ResourceError, match=r"Model is made twice, by \S+:resource_one and \S+:resource_two"):
        worker.resource(resource_two)


def resource_one() -> Model:
    return Model(None)


def resource_two(n: int = 1) -> Model:
    return Model(n)


def make_from_other(other: Other) -> Model:
    return Model(other)


def make_other_from(model: Model) -> Other:
    return Other(model)


def test_cycles_and_missing_resources_are_found_before_the_start():
    worker = Worker()
    worker.resource(make_from_other)
    settings = worker.load_settings({})
    with pytest.raises(ResourceError, match=r"nothing makes its argument 'other', a Other \(resources are: Model\)"):
        worker.load_skills(settings)
    worker.resource(make_other_from)
    with pytest.raises(ResourceError, match="it needs itself: make_from_other → make_other_from → make_from_other"):
        worker.load_skills(settings)


async def test_resources_of_a_blueprint_and_those_registered_after_a_skill_are_given():
    blueprint, worker = SkillBlueprint("models"), Worker()

    @blueprint.resource
    def make(database: Database) -> Model:
        return Model(database)

    @blueprint.skill
    async def use(model: Model) -> dict:
        return {"name": model.database.name}

    @worker.skill
    async def configured(config: Config | None = None, n: int = 1) -> dict:
        return {"name": config and config.name, "n": n}

    worker.include_blueprint(blueprint)
    with pytest.raises(SkillDefinitionError, match="if it is a resource, register it before the skill"):

        @worker.skill
        async def too_early(database: Database) -> None: ...

    @worker.resource
    def connect() -> Database:
        return Database("late")

    @worker.resource
    def configure() -> Config:
        return Config("late, too")

    async with WorkerHarness(worker) as h:
        assert (await h.run("use")).data == {"name": "late"}
        assert (await h.run("configured", {"n": 2})).data == {"name": "late, too", "n": 2}


async def test_resources_of_one_module_of_the_skills_directory_are_given_in_another(tmp_path):
    directory = tmp_path / "dir_of_skills"
    directory.mkdir()
    head = "from __future__ import annotations\nfrom avtomatika_worker import SkillBlueprint\nbp = SkillBlueprint()\n"
    (directory / "a_skills.py").write_text(
        head + "from .z_models import Model\n@bp.skill(executor='process')\n"
        "def ask(model: Model) -> dict:\n    return {'name': model.name}\n",
        "utf-8",
    )
    (directory / "z_models.py").write_text(
        head + "class Model:\n    name = 'here'\n@bp.resource\ndef make() -> Model:\n    return Model()\n", "utf-8"
    )
    async with WorkerHarness(Worker(), settings={"skills_dir": directory}) as h:
        result = await h.run("ask")
    assert result.data == {"name": "here"}, result.error


async def test_a_context_without_the_resource_names_the_available_ones():
    worker = worker_with([])

    @worker.skill
    async def asks(ctx: TaskContext) -> None:
        ctx.resource(Other)

    async with WorkerHarness(worker) as h:
        error = (await h.run("asks")).error
    assert "no resource of type Other was made in this process (Database, Model)" in error.message


# ---------------------------------------------------------------------------------------------- replaced in tests


async def test_a_test_gives_others_in_their_place_and_what_only_they_needed_is_not_made():
    log = []
    worker = worker_with(log)
    async with WorkerHarness(worker, resources={Model: Model(Database("fake")), Database: Database("fake 2")}) as h:
        assert (await h.run("on_loop")).data["database"] == "fake"
        assert (await h.run("in_thread")).data["same"] is False
    assert log == []
    async with WorkerHarness(worker, resources={Database: Database("fake")}, own_thread=True) as h:
        assert (await h.run("on_loop")).data["database"] == "fake"
    assert log == ["model made", "model closed"]
    with pytest.raises(ResourceError, match=r"no such resource to replace \(resources are: Model, Database\)"):
        await WorkerHarness(worker, resources={Other: Other(None)}).start()


# ---------------------------------------------------------------------------------------------- in processes


@pytest.fixture
def worker(app):
    made = Worker()
    made.include_blueprint(app.with_resources)
    return made


async def test_each_process_makes_its_own_and_the_worker_makes_none_that_only_they_need(worker, journal):
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 1}) as h:
        first = (await h.run("predict")).data
        second = (await h.run("predict_async")).data
        assert (first["model"], first["id"], second["same"]) == ("real", second["id"], True)
    pid = first["pid"]
    assert pid != os.getpid()
    assert journal() == [f"database made {pid}", f"model made {pid}", f"model closed {pid}", f"database closed {pid}"]


async def test_what_a_skill_here_needs_too_is_made_here_and_there(worker, app, journal):
    @worker.skill
    async def local(model: app.Model) -> dict:
        return {"pid": os.getpid()}

    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 1}) as h:
        other = (await h.run("predict")).data["pid"]
        assert (await h.run("local")).status == "success"
    assert sorted(journal()) == sorted(
        f"{what} {done} {pid}"
        for pid in (os.getpid(), other)
        for what in ("model", "database")
        for done in ("made", "closed")
    )


async def test_replacements_travel_to_processes(worker, app, journal, tmp_path):
    fake = app.Model(app.Database(tmp_path / "none"), "fake")
    async with WorkerHarness(worker, resources={app.Model: fake}) as h:
        assert (await h.run("predict")).data["model"] == "fake"
    assert journal() == []
    async with WorkerHarness(worker, resources={app.Database: app.Database(tmp_path / "other")}) as h:
        assert (await h.run("predict")).data["model"] == "real"
    assert journal() == []
    assert (tmp_path / "other").read_text("utf-8").startswith("model made")


async def test_a_replacement_that_cannot_travel_is_a_clear_error(worker, app):
    fake = app.Unpicklable(app.Database(None))
    harness = WorkerHarness(worker, resources={app.Model: fake})
    with pytest.raises(ResourceError, match="Model': the value given for it cannot be sent to a skill process: a lock"):
        await harness.start()


async def test_one_that_a_process_cannot_make_ends_the_start(app, caplog):
    worker = Worker()
    worker.include_blueprint(app.broken_resource)
    async with EmbeddedOrchestrator() as orchestrator:
        environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token}
        settings = worker.load_settings(environment, {"result_durability": "off"})
        with pytest.raises(ResourceError, match=r"'no_model': cannot be created: FileNotFoundError: weights.bin"):
            await worker.main(settings, health_check=False)
        assert not orchestrator.workers
    (failed,) = [each for each in caplog.records if getattr(each, "action", "") == "resource_failed"]
    assert "in no_model" in failed.exc_text


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_resource_that_hangs_while_it_is_closed_holds_the_end_up_for_seconds_at_most(app, journal, signals):
    worker = Worker()
    worker.include_blueprint(app.never_closed)
    async with EmbeddedOrchestrator() as orchestrator:
        environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token}
        settings = worker.load_settings(environment, {"result_durability": "off"})
        main = asyncio.create_task(worker.main(settings, health_check=False))
        await orchestrator.wait_for_worker("w1", timeout=20)
        worker.request_shutdown()
        await until(journal)
        if signals == 2:
            worker.request_shutdown()
        await asyncio.wait_for(main, 2 if signals == 2 else 8)
    assert gone(int(journal()[0].removeprefix("closing ")))
