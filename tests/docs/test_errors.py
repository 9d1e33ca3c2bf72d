"""Errors as users meet them: each is provoked, and found on the page that lists them (docs/errors.md)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from avtomatika_worker import ResourceError, SkillBlueprint, SkillDefinitionError, TaskContext, TaskFiles, Worker
from avtomatika_worker.config import load_settings, read_env_file, unknown_variables
from avtomatika_worker.testing import EmbeddedOrchestrator, Fault, WorkerHarness, assert_contract
from docs.blocks import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
ROWS = [
    cell.strip().removeprefix("`").removesuffix("`").strip()
    for line in re.sub(r"(?s)## While it runs.*?\n## ", "", PAGE).splitlines()
    if line.startswith("| `")
    for cell in [re.split(r"(?<!\\) \| ", line.removeprefix("| "))[0]]
]
PATTERNS = {row: re.compile(re.escape(row).replace("…", ".*"), re.DOTALL) for row in ROWS}
CERTIFICATES = ROOT / "tests" / "data" / "tls"


def listed(message: str, *, whole: bool = True) -> list[str]:
    """Return the rows of the page that list this message; one that says next to nothing does not count."""
    look = "fullmatch" if whole else "search"
    return [row for row, pattern in PATTERNS.items() if len(row) > 15 and getattr(pattern, look)(message)]


def test_the_page_lists_each_message_once():
    assert len(ROWS) == len(set(ROWS))
    assert len(ROWS) > 80


# ------------------------------------------------------------------------------------------------------ definitions


class Opaque:
    """Nothing that JSON knows."""


def register(*arguments: Any, func: Callable[..., Any] = lambda params: params, **options: Any) -> None:
    worker = Worker()
    worker.skill(*arguments, **options)(func)
    worker.skills.freeze()


def takes_opaque(thing: Opaque): ...
def returns_opaque() -> Opaque: ...
def takes_unknown(thing: Unknown): ...  # noqa: F821 - that is the point
def takes_list(params: list[int]): ...
def takes_database(params: dict, database): ...
def takes_all(*everything): ...
def generates():
    yield 1


def takes_priority(priority: str): ...
def one_argument(ctx): ...
def plain_middleware(ctx, call_next): ...


def twice():
    worker = Worker()
    worker.skill("one")(takes_list)
    worker.skill("one")(one_argument)


DEFINITIONS: dict[str, Callable[[], object]] = {
    "name": lambda: register("a b"),
    "twice": twice,
    "argument": lambda: register(func=takes_database),
    "star": lambda: register(func=takes_all),
    "input": lambda: register(func=takes_opaque),
    "output": lambda: register(func=returns_opaque),
    "list": lambda: register(func=takes_list),
    "hint": lambda: register(func=takes_unknown),
    "schema": lambda: register("a", input_schema={"type": "strin"}),
    "schema-text": lambda: register("a", input_schema="string"),
    "events": lambda: register("a", events=["alert"]),
    "event": lambda: register("a", events={"alert": int}),
    "generator": lambda: register(func=generates, events={"chunk": {"type": "object"}}),
    "class": lambda: register("a", func=Opaque),
    "timeout": lambda: register("a", timeout="5"),
    "metadata": lambda: register("a", limits=Opaque()),
    "metadata-kind": lambda: register("a", metadata=["price"]),
    "metadata-twice": lambda: register("a", metadata={"price": 1}, price=2),
    "option": lambda: register("a", timout=5),
    "version": lambda: register("a", version=2.1),
    "statuses": lambda: register("a", output_statuses=5),
    "reserved": lambda: register(func=takes_priority),
    "limits": lambda: Worker(skill_type_limits={"gpu": 0}),
    "dependencies": lambda: Worker(skill_dependencies={"caption": "vit-large"}),
    "middleware": lambda: Worker().add_middleware("x"),
    "middleware-plain": lambda: Worker().add_middleware(plain_middleware),
    "middleware-class": lambda: Worker().add_middleware(Opaque),
    "middleware-arguments": lambda: Worker().add_middleware(one_argument),
    "blueprint": lambda: Worker().include_blueprint(SkillBlueprint),
    "setting": lambda: Worker(settings={"heartbeat_intervall": 5}).load_settings({}),
    "skills-dir": lambda: Worker(skills_dir="/nowhere/skills").load_skills(
        Worker(skills_dir="/nowhere/skills").load_settings({})
    ),
    "number": lambda: load_settings({"MAX_CONCURRENT_TASKS": "many"}),
    "positive": lambda: load_settings({"HEARTBEAT_INTERVAL": "0"}),
    "boolean": lambda: load_settings({"WORKER_ENABLE_WEBSOCKETS": "maybe"}),
    "choice": lambda: load_settings({"LOG_LEVEL": "loud"}),
    "url": lambda: load_settings({"ORCHESTRATOR_URL": "localhost:8080"}),
    "token": lambda: load_settings({"WORKER_TOKEN": "two words"}),
    "id": lambda: load_settings({"WORKER_ID": "a.b"}),
    "json": lambda: load_settings({"ORCHESTRATORS_CONFIG": "[{url: x}]"}),
    "pair": lambda: load_settings({"S3_ACCESS_KEY": "key"}),
    "file": lambda: load_settings({"TLS_CA_PATH": "/nowhere.pem"}),
    "kubernetes": lambda: load_settings({"WORKER_PORT": "tcp://10.0.0.1:80"}),
}


@pytest.mark.parametrize("provoke", DEFINITIONS.values(), ids=DEFINITIONS)
def test_what_a_program_gets_wrong_is_listed(provoke):
    with pytest.raises(Exception) as caught:
        provoke()
    assert listed(str(caught.value)), str(caught.value)


def test_a_token_is_not_shown():
    with pytest.raises(Exception) as caught:
        load_settings({"WORKER_TOKEN": "two words"})
    assert "two words" not in str(caught.value)


def test_names_that_are_nearly_settings_are_listed():
    assert listed(unknown_variables({"WORKER_TOKN": "x"})[0])


def test_former_settings_are_listed():
    assert listed(unknown_variables({"WORKER_TRANSFER_ATTEMPTS": "3"})[0])
    with pytest.raises(TypeError) as caught:
        load_settings({}, transfer_attempts=3)
    assert listed(str(caught.value))


def test_lines_of_a_dotenv_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("WORKER_ID x\n")
    with pytest.raises(Exception) as caught:
        read_env_file(".env")
    assert listed(str(caught.value)), str(caught.value)


def test_a_missing_contract_is_listed(tmp_path):
    with pytest.raises(AssertionError) as caught:
        assert_contract(Worker(), tmp_path / "contract.json")
    assert listed(str(caught.value)), str(caught.value)


class Model:
    """What a resource makes."""


def makes_anything():
    return Model()


def makes_a_dict() -> dict:
    return {}


def makes_a_model() -> Model:
    return Model()


def makes_another() -> Model:
    return Model()


def needs_another(other: Opaque) -> Model:
    return Model()


def cannot_be_made() -> Model:
    raise OSError("there is no model")


def takes_a_model(model: Model): ...


async def start(*resources: Callable[..., Any], skill: Callable[..., Any], executor: str | None = None) -> None:
    """Start a worker with these, and stop it."""
    worker = Worker()
    for each in resources:
        worker.resource(each)
    worker.skill("skill", executor=executor)(skill)
    async with WorkerHarness(worker):
        pass


@pytest.mark.parametrize(
    "resources",
    [[makes_anything], [makes_a_dict], [makes_a_model, makes_another], [needs_another], [cannot_be_made]],
    ids=lambda resources: resources[-1].__name__,
)
async def test_what_is_wrong_with_resources_is_listed(resources):
    with pytest.raises(ResourceError) as caught:
        await start(*resources, skill=takes_a_model)
    assert listed(str(caught.value)), str(caught.value)


def loads(name: str) -> Model:
    raise OSError(name)


def loads_another(name: str) -> Opaque:
    return Opaque()


def loads_by_number(name: int) -> Model:
    return Model()


def takes_a_model_by_name(name: str, model: Model): ...


def takes_two_models(name: str, model: Model, other: Opaque): ...


@pytest.mark.parametrize(
    ("load", "options"),
    [
        (makes_a_model, {}),
        (loads_by_number, {}),
        (loads, {"max_loaded": 0}),
        (loads, {"max_loaded": None}),
        (loads, {"warm_up": ["a"]}),
    ],
)
async def test_what_is_wrong_with_loaders_of_models_is_listed(load, options):
    with pytest.raises(ResourceError) as caught:
        await worker_runs(lambda worker: worker.model(**options)(load))
    assert listed(str(caught.value)), str(caught.value)


async def worker_runs(register: Callable[[Worker], object]) -> None:
    worker = Worker()
    register(worker)
    async with WorkerHarness(worker):
        pass


@pytest.mark.parametrize(
    ("skill", "options"),
    [
        (takes_a_model_by_name, {}),
        (lambda name: name, {"model_from": "name"}),
        (takes_a_model_by_name, {"model_from": "nome"}),
        (takes_two_models, {"model_from": "name"}),
        (takes_a_model_by_name, {"model_from": "name", "executor": "process"}),
    ],
)
async def test_what_is_wrong_with_skills_that_take_models_is_listed(skill, options):
    def register(worker: Worker) -> None:
        worker.model(names=["a"], announce="per_model")(loads)
        worker.model(loads_another)
        worker.skill("skill", **options)(skill)

    with pytest.raises(SkillDefinitionError) as caught:
        await worker_runs(register)
    assert listed(str(caught.value)), str(caught.value)


async def test_a_model_that_cannot_be_loaded_is_listed():
    worker = Worker()
    worker.model(loads)
    worker.skill("skill", model_from="name")(takes_a_model_by_name)
    async with WorkerHarness(worker) as h:
        error = (await h.run("skill", {"name": "a"})).error
    assert listed(error.message), error.message


@pytest.mark.parametrize(
    ("options", "devices"),
    [
        ({"gpus": 1.5, "executor": "process"}, "0"),
        ({"gpus": 1}, "0"),
        ({"gpus": 1, "executor": "process"}, ""),
        ({"gpus": 2, "executor": "process"}, "0"),
    ],
)
async def test_what_is_wrong_with_devices_for_skills_is_listed(monkeypatch, options, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    with pytest.raises(SkillDefinitionError) as caught:
        await worker_runs(lambda worker: worker.skill(**options)(on_a_device))
    assert len(listed(str(caught.value))) == 1, str(caught.value)


def on_a_device() -> None: ...


@pytest.mark.parametrize("executor", ["process", "gpu"])
async def test_what_cannot_run_in_a_process_is_listed(executor):
    with pytest.raises(SkillDefinitionError) as caught:
        await start(skill=lambda: 1, executor=executor)
    assert listed(str(caught.value)), str(caught.value)


# ------------------------------------------------------------------------------------------------------ missing extras


def test_missing_extras_are_listed(tmp_path):
    """In an interpreter that finds none of them."""
    script = """
import sys
for name in ("pydantic", "opentelemetry", "obstore"): sys.modules[name] = None
import asyncio
from avtomatika_worker import Worker
from avtomatika_worker.testing import WorkerHarness
def report(work):
    try: work()
    except Exception as error: print(str(error))
from typing import Annotated
import annotated_types
from pathlib import Path
worker = Worker()
def a(thing: Annotated[int, annotated_types.Gt(0)]): ...
report(lambda: worker.skill(a))
good = Worker()
@good.skill
def b(file: Path): ...
async def main(**settings):
    async with WorkerHarness(good, settings=settings) as h:
        print((await h.run("b", {"file": "s3://bucket/key"})).error.message)
asyncio.run(main(s3_default_bucket="bucket", s3_access_key="a", s3_secret_key="b"))
report(lambda: asyncio.run(main(enable_metrics=True)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    lines = done.stdout.splitlines()
    assert any("needs pydantic" in line for line in lines), done.stdout + done.stderr
    assert any("obstore" in line for line in lines), done.stdout + done.stderr
    assert any("OpenTelemetry" in line for line in lines), done.stdout + done.stderr
    assert [line for line in lines if not listed(line, whole=False)] == []


# ------------------------------------------------------------------------------------------------------ the command

APP = """
from avtomatika_worker import Worker
worker = Worker()
number = 5
async def factory(): ...
@worker.skill
async def ping(text: str = ""): return text
@worker.skill
async def double(n: int): return 2 * n
"""


class Typed(NamedTuple):
    """What is typed, and where."""

    arguments: str
    variables: dict[str, str] = {}  # noqa: RUF012 - never changed


def typed(directory: Path, port: int) -> list[Typed]:
    """Return commands that end with a message."""
    tls = {"ORCHESTRATOR_URL": "https://x.invalid", "WORKER_PORT": "0"}
    key, cert = str(CERTIFICATES / "key.pem"), str(CERTIFICATES / "cert.pem")
    return [
        Typed("run --app app"),
        Typed("run --app nowhere:worker"),
        Typed("run --app app.py:worker"),
        Typed("run --app app:wrker"),
        Typed("run --app app:number"),
        Typed("run --app app:factory"),
        Typed("run --app raises:worker"),
        Typed("run --app ends:worker"),
        Typed("run --app app:worker", {"WORKER_PORT": str(port)}),
        Typed("run --app app:worker", {"WORKER_PORT": "0", "WORKER_HEALTH_HOST": "192.0.2.1"}),
        Typed("run --app app:worker", {"WORKER_PORT": "0", "WORKER_STATE_DIR": str(directory / "app.py")}),
        Typed("run --app app:worker", {"WORKER_SKILLS_DIR": "broken"}),
        Typed("run --app app:worker", {**tls, "TLS_CA_PATH": str(directory / "app.py")}),
        Typed("run --app app:worker", {**tls, "TLS_CERT_PATH": cert, "TLS_KEY_PATH": key.replace("key", "other-key")}),
        Typed(f"dev --app app:worker --port {port}"),
        Typed("dev --app app:worker --port 0 --protocol 2.0"),
        Typed("run"),
        Typed("call --app app:worker pin"),
        Typed("call --app app:worker ping {a:1}"),
        Typed("call --app app:worker ping [1]"),
        Typed("call --app app:worker ping -p text"),
        Typed("call --app app:worker double -p n=many"),
        Typed("call --app app:worker ping -f nowhere.json"),
        Typed("init broken"),
        Typed("skills --app app:worker --json --markdown"),
    ]


async def test_what_is_typed_wrong_is_listed(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "raises.py").write_text("import json\n\njson.loads('{')\n")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "skill.py").write_text("import nowhere\n")
    (tmp_path / "broken" / "Dockerfile").touch()
    environment = {"PATH": "", "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONUTF8": "1"}
    few_at_a_time = asyncio.Semaphore(3)

    async def run(each: Typed) -> str:
        async with few_at_a_time:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "avtomatika_worker.cli", *each.arguments.split()),
                cwd=tmp_path,
                env={**environment, **each.variables},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, written = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 2, f"{each}: {written.decode()}"
            return written.decode()

    with socket.create_server(("0.0.0.0", 0)) as taken:
        commands = typed(tmp_path, taken.getsockname()[1])
        answers = list(zip(commands, await asyncio.gather(*map(run, commands)), strict=True))
    for each, written in answers:
        lines = [line.removeprefix("worker: ") for line in written.splitlines() if line.startswith("worker: ")]
        assert lines, f"{each}: {written}"
        assert all(map(listed, lines)), f"{each}: {lines}"
    assert f"({tmp_path / 'raises.py'}, line 3)" in answers[6][1]
    assert "link thread" not in answers[8][1]


# ------------------------------------------------------------------------------------------------------ tasks


def skills() -> Worker:
    """Return a worker whose skills go wrong, each in its way."""
    worker = Worker()
    cycle: dict[str, Any] = {}
    cycle["again"] = cycle
    returned: dict[str, Callable[[], Any]] = {
        "nan": lambda: {"scores": [float("nan")]},
        "big": lambda: {"number": 2**70},
        "opaque": lambda: {"thing": Opaque()},
        "cycle": lambda: cycle,
        "status": lambda: {"status": 5},
        "exits": lambda: sys.exit(3),
        "raises": lambda: {}["key"],
    }
    for name, func in returned.items():
        worker.skill(name)(func)

    @worker.skill
    def lies() -> int:
        return "text"  # type: ignore[return-value]

    @worker.skill(output_statuses=["review"])
    def undeclared():
        return {"status": "other"}

    @worker.skill(timeout=0.01)
    async def slow():
        await asyncio.sleep(60)

    @worker.skill
    async def cancels_itself():
        raise asyncio.CancelledError

    @worker.skill
    async def leads_out(files: TaskFiles):
        await files.write("../x", "")

    @worker.skill
    async def stores(files: TaskFiles):
        return Path(await files.write("a.txt", "a"))

    @worker.skill
    async def forgets(files: TaskFiles):
        return Path(await files.path_to("nothing.txt"))

    @worker.skill
    async def blocks(files: TaskFiles):
        files.sync.upload_file("a.txt")

    @worker.skill
    def opens(file: Path): ...

    @worker.skill
    def number(x: int): ...

    return worker


async def test_what_goes_wrong_in_tasks_is_listed(tmp_path):
    worker = skills()
    others = [("opens", {"file": "s3://b/k"}), ("opens", {"file": "file:///etc/hosts"}), ("number", {"x": "y"})]
    named = {"opens", "number"}
    no_store = {"task_files_dir": tmp_path / "files", "file_store_root": None}
    async with WorkerHarness(worker, settings=no_store) as h:
        for skill, params in [*((name, {}) for name in worker.skills.names() if name not in named), *others]:
            error = (await h.run(skill, params)).error
            rows = listed(error.message) or [row for row in ROWS if row in {"…Error: …", "SystemExit: …"}]
            assert rows, f"{skill}: {error}"
            line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{rows[0]}`"))
            assert f"`{error.code}`" in line, f"{skill}: {error}"
        assert (await h.run("exits")).error.message == "SystemExit: 3"
        for wrong in (lambda: h.submit("numbr"), lambda: h.submit("number", 5)):
            with pytest.raises(ValueError) as caught:
                wrong()
            assert listed(str(caught.value)), str(caught.value)
    with pytest.raises(RuntimeError) as caught:
        h.submit("number")
    assert listed(str(caught.value)), str(caught.value)
    async with WorkerHarness(worker, settings={"task_files_max_bytes": 3, "task_files_max_objects": 2}) as h:
        small, large = h.store("a", "a"), h.store("b", "four")
        (tmp_path / "many").mkdir()
        for number in range(3):
            (tmp_path / "many" / str(number)).touch()
        many = h.store("many", tmp_path / "many")
        for uri in ("gs://b/k", large, many):
            error = (await h.run("opens", {"file": uri})).error
            assert listed(error.message), error
        assert (await h.run("opens", {"file": small})).error is None
    (tmp_path / "file").touch()
    async with WorkerHarness(worker, settings={"task_files_dir": tmp_path / "file"}) as h:
        error = (await h.run("stores")).error
        assert listed(error.message), error


async def test_events_that_are_not_sent_are_listed(caplog):
    worker = Worker()

    @worker.skill(events={"alert": {"type": "object", "required": ["level"]}})
    async def alerts(ctx: TaskContext):
        return [bool(ctx.send_event("alert", {})), bool(ctx.send_event("other")), bool(ctx.send_progress(50))]

    with caplog.at_level(logging.ERROR, "avtomatika_worker"):
        async with WorkerHarness(worker) as h:
            assert (await h.run("alerts")).data == {"result": [False, False, False]}
    messages = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "event_blocked"]
    assert len(messages) == 3
    assert all(map(listed, messages)), messages


# ------------------------------------------------------------------------------------------------------ contact


async def refused_by(caplog, url: str, token: str = "right") -> str:
    """Return what the log says of the first registration with ``url``."""
    worker = Worker(worker_id="contact")
    settings = worker.load_settings({"ORCHESTRATOR_URL": url, "WORKER_TOKEN": token, "WORKER_RESULT_DURABILITY": "off"})
    caplog.clear()
    running = asyncio.ensure_future(worker.main(settings, health_check=False))
    wanted = {"registration_failed", "clock_differs"}
    try:
        async with asyncio.timeout(20):
            while True:
                for record in list(caplog.records):
                    if getattr(record, "action", "") in wanted:
                        return record.getMessage()
                await asyncio.sleep(0.02)
    finally:
        worker.request_shutdown()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_trouble_with_the_orchestrator_is_listed(caplog):
    caplog.set_level(logging.INFO, "avtomatika_worker")
    messages = []
    async with EmbeddedOrchestrator(token="right") as orchestrator:
        messages.append(await refused_by(caplog, orchestrator.url, "wrong"))
        messages.append(await refused_by(caplog, f"{orchestrator.url}/prefix"))
        messages.append(await refused_by(caplog, orchestrator.url.replace("http:", "https:")))
        orchestrator.inject(Fault("register", "html", status=502, times=9))
        messages.append(await refused_by(caplog, orchestrator.url))
        gone = orchestrator.url
    messages.append(await refused_by(caplog, gone))
    async with EmbeddedOrchestrator(token="right", clock=lambda: time.time() + 7200) as late:
        messages.append(await refused_by(caplog, late.url))
    for message in messages:
        assert listed(message, whole=False), message


def test_actions_on_the_page_are_those_of_the_log():
    section = PAGE.partition("## While it runs")[2].partition("\n## ")[0]
    named = [
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split(" | ")[0])
    ]
    known = (ROOT / "docs" / "log-actions.md").read_text("utf-8")
    assert len(named) > 5
    assert [name for name in named if f"| `{name}` |" not in known] == []


def test_the_page_has_json_where_it_says_so():
    assert json.loads(next(row for row in ROWS if "object such as" in row).partition("'")[2].removesuffix("'"))
