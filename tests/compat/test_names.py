"""Every name of the official SDK, 1.0b13 to 1.0b20, is where users look for it, or an error says what to use."""

from __future__ import annotations

import contextvars
import importlib
import inspect
import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import avtomatika_worker
import avtomatika_worker.logging as official_logging
from avtomatika_worker import (
    ConfigError,
    DeviceUsage,
    InvalidInputError,
    ResourcesUsage,
    SkillBlueprint,
    SkillInfo,
    Worker,
    WorkerConfig,
    is_valid_identifier,
    validate_identifier,
)

CODES = [
    "INVALID_INPUT_ERROR",
    "PERMANENT_ERROR",
    "TRANSIENT_ERROR",
    "RESOURCE_EXHAUSTED_ERROR",
    "SECURITY_ERROR",
    "DEPENDENCY_ERROR",
    "DEPENDENCY_MISSING_ERROR",
    "TIMEOUT_ERROR",
    "INTERNAL_ERROR",
    "CONTRACT_VIOLATION_ERROR",
]

PLACES = {
    "avtomatika_worker": """Worker SkillBlueprint TaskFiles ObservabilityManager WorkerConfig SkillInfo ResourcesUsage
        DeviceUsage setup_logging is_valid_identifier validate_identifier OrchestratorClient""",
    "avtomatika_worker.config": "WorkerConfig",
    "avtomatika_worker.types": f"{' '.join(CODES)} ParamValidationError Middleware CapacityChecker",
    "avtomatika_worker.task_files": "TaskFiles",
    "avtomatika_worker.observability": "ObservabilityManager",
    "avtomatika_worker.logging": "setup_logging set_context clear_context ContextFilter",
    "avtomatika_worker.worker": "Worker SkillBlueprint OrchestratorClient",
}


@pytest.mark.parametrize(("module", "name"), [(m, name) for m, names in PLACES.items() for name in names.split()])
def test_a_name_is_where_users_import_it_from_and_one_object_everywhere(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert found is getattr(avtomatika_worker, name, found) or module.endswith(".types")


def test_what_a_program_adds_to_the_context_is_on_its_records_until_it_is_cleared() -> None:
    def seen() -> list[Any]:
        record = logging.makeLogRecord({})
        assert official_logging.ContextFilter().filter(record)
        return [getattr(record, name, None) for name in ("batch", "task_id")]

    def play() -> list[list[Any]]:
        official_logging.set_context(batch=7, task_id="t")
        found = [seen()]
        official_logging.clear_context("batch")
        found.append(seen())
        official_logging.clear_context()
        return [*found, seen()]

    assert contextvars.copy_context().run(play) == [["7", "t"], [None, "t"], [None, ""]]


@pytest.mark.parametrize("code", CODES)
def test_codes_of_errors_are_the_texts_that_orchestrators_know(code: str) -> None:
    assert getattr(importlib.import_module("avtomatika_worker.types"), code) == code


def test_an_error_of_params_fails_its_task_as_wrong_input() -> None:
    from avtomatika_worker.types import ParamValidationError

    assert issubclass(ParamValidationError, InvalidInputError)


@pytest.mark.parametrize(
    ("statement", "instead"),
    [
        ("from avtomatika_worker.s3 import S3Manager", "TaskFiles"),
        ("from avtomatika_worker.typing import Middleware", "avtomatika_worker.types"),
    ],
)
def test_an_unavailable_import_says_what_to_use(statement: str, instead: str) -> None:
    with pytest.raises(ImportError, match=instead):
        exec(statement, {})  # noqa: S102


@pytest.mark.parametrize("owner", [Worker, SkillBlueprint])
def test_a_former_attribute_names_the_new_way(owner: Any) -> None:
    with pytest.raises(AttributeError, match="skill"):
        owner().task  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        owner().no_such  # noqa: B018


@pytest.mark.parametrize(
    ("argument", "instead"),
    [("task_type_limits", "skill_type_limits"), ("http_session", "HTTP_PROXY"), ("clients", "ORCHESTRATORS_CONFIG")],
)
def test_an_argument_that_means_nothing_here_says_what_to_use(argument: str, instead: str) -> None:
    given: Any = {argument: object()}
    with pytest.raises(ConfigError, match=instead):
        Worker(**given)


def test_arguments_that_say_nothing_are_taken() -> None:
    worker = Worker("empty", http_session=None, clients=[])
    assert worker.load_settings({}).worker_type == "empty"


def test_an_argument_that_never_existed_is_a_type_error() -> None:
    given: Any = {"worker_typ": "x"}
    with pytest.raises(TypeError, match="no argument 'worker_typ'; did you mean 'worker_type'"):
        Worker(**given)


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "avtomatika_worker", "version"], capture_output=True, text=True, check=True
    )
    assert avtomatika_worker.__version__ in done.stdout


def test_the_port_option_is_the_health_servers_and_wins_over_the_variable(tmp_path: Path) -> None:
    (tmp_path / "my_app.py").write_text("from avtomatika_worker import Worker\nworker = Worker()\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "avtomatika_worker", "run", "--app", "my_app:worker", "--port", port]
        environ = {"PATH": "", "WORKER_PORT": "0", "WORKER_HEALTH_HOST": "127.0.0.1", "WORKER_STATE_DIR": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert port in done.stdout + done.stderr


def test_a_file_run_by_its_path_does_not_find_our_modules_in_place_of_the_standard_librarys() -> None:
    """Processes for skills run a file of the package by its path: ``logging`` must stay the standard library's."""
    code = "import logging, types, typing; print(logging.__file__, types.__file__, typing.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "avtomatika_worker" not in done.stdout
    assert not hasattr(logging, "setup_logging")


@pytest.mark.parametrize("value", ["a", "A-z_0", "x" * 128])
def test_a_valid_identifier_is_accepted(value: str) -> None:
    assert is_valid_identifier(value)
    validate_identifier(value)


@pytest.mark.parametrize("value", ["", "a b", "a.b", "x" * 129, "é", "a\n", None, 5, b"a"])
def test_an_invalid_identifier_is_a_value_error_that_names_it(value: Any) -> None:
    assert not is_valid_identifier(value)
    with pytest.raises(ValueError, match="Invalid job_id"):
        validate_identifier(value, "job_id")


def test_a_skill_matches_what_asks_for_less() -> None:
    skill = SkillInfo("resize", "image", version="1.2.0")
    assert skill.matches(SkillInfo("resize"))
    assert skill.matches(SkillInfo("resize", "image", version="1.2.0"))
    assert not skill.matches(SkillInfo("resize", version="1.1.0"))
    assert not skill.matches(SkillInfo("resize", "video"))
    assert not skill.matches(SkillInfo("crop"))


class PricedInfo(SkillInfo):
    price: float = 0.5


@pytest.mark.parametrize("owner", [Worker, SkillBlueprint])
def test_a_skill_is_described_by_an_info(owner: Any) -> None:
    taker = owner()

    @taker.skill(PricedInfo("resize", "image", description="Make smaller", version="2.0.0", properties={"gpu": True}))
    def anything(params: dict[str, Any]) -> None: ...

    worker = taker if isinstance(taker, Worker) else Worker()
    if worker is not taker:
        worker.include_blueprint(taker)
    (contract,) = worker.skills.contracts()
    assert (contract.name, contract.type, contract.version) == ("resize", "image", "2.0.0")
    assert contract.properties == {"gpu": True, "price": 0.5}


def test_a_class_of_infos_takes_the_functions_name() -> None:
    worker = Worker()
    decorate: Any = worker.skill

    @decorate(PricedInfo)
    def resize(params: dict[str, Any]) -> None: ...

    assert worker.skills.names() == ("resize",)


def test_the_schema_dialect_and_properties_are_the_fields_themselves() -> None:
    worker = Worker()

    @worker.skill("a", properties={"gpu": True}, schema_dialect="json-schema")
    def a(params: dict[str, Any]) -> None: ...

    assert worker.skills.contracts()[0].properties == {"gpu": True}


def test_usage_objects_have_the_official_fields() -> None:
    usage = ResourcesUsage(12.5, 3.0, [DeviceUsage("0", 50.0)])
    assert (usage.cpu_load_percent, usage.devices_usage[0].metrics if usage.devices_usage else 0) == (12.5, None)


def test_arguments_may_be_given_by_position() -> None:
    config = WorkerConfig()
    worker = Worker("img", 5, {"gpu": 1}, None, {"a": ["b"]}, config, lambda _: True, None, "somewhere")
    settings = worker.load_settings({})
    assert (settings.worker_type, settings.max_concurrent_tasks, str(settings.skills_dir)) == ("img", 5, "somewhere")
    assert worker.config is config
    assert list(inspect.signature(worker.skill).parameters)
