"""`WorkerConfig`: the settings under the official SDK's names."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest

from avtomatika_worker import ConfigError, Worker, WorkerConfig
from avtomatika_worker.compat.former_environment import hints
from avtomatika_worker.compat.former_settings import FIELDS, MEANINGLESS, MEANINGLESS_DEFAULTS

OFFICIAL = [
    "WORKER_ID",
    "WORKER_TYPE",
    "WORKER_PORT",
    "HOSTNAME",
    "IP_ADDRESS",
    "ORCHESTRATORS",
    "WORKER_TOKEN",
    "TLS_CA_PATH",
    "TLS_CERT_PATH",
    "TLS_KEY_PATH",
    "REQUIRE_TASK_SIGNATURE",
    "SECRET_KEY",
    "COST_PER_SKILL",
    "MAX_CONCURRENT_TASKS",
    "RESOURCES",
    "INSTALLED_SOFTWARE",
    "INSTALLED_ARTIFACTS",
    "TASK_FILES_DIR",
    "S3_ENDPOINT_URL",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "S3_DEFAULT_BUCKET",
    "S3_REGION",
    "HEARTBEAT_INTERVAL",
    "RESULT_MAX_RETRIES",
    "RESULT_RETRY_INITIAL_DELAY",
    "REGISTRATION_RETRY_INITIAL_DELAY",
    "REGISTRATION_RETRY_MAX_DELAY",
    "HEARTBEAT_COOLDOWN",
    "HEARTBEAT_DEBOUNCE_DELAY",
    "RATE_LIMIT_BACKOFF_FLOOR",
    "TASK_POLL_TIMEOUT",
    "TASK_POLL_ERROR_DELAY",
    "POLL_BACKOFF_INITIAL",
    "POLL_BACKOFF_MAX",
    "POLL_BACKOFF_FACTOR",
    "IDLE_POLL_DELAY",
    "SHUTDOWN_TIMEOUT",
    "ENABLE_WEBSOCKETS",
    "MULTI_ORCHESTRATOR_MODE",
    "WORKER_SKILLS_DIR",
    "STRICT_EVENT_VALIDATION",
    "WORKER_ENABLE_METRICS",
    "WORKER_BLOB_CACHE_DIR",
    "WORKER_TELEMETRY_DEADBAND",
    "WORKER_TELEMETRY_FORCE_INTERVAL",
    "EXTRA_CAPABILITIES",
]

VALUES: dict[str, tuple[Any, str, Any]] = {
    "WORKER_ID": ("w-7", "worker_id", "w-7"),
    "WORKER_TYPE": ("gpu", "worker_type", "gpu"),
    "WORKER_PORT": (9000, "port", 9000),
    "WORKER_TOKEN": ("secret", "effective_token", "secret"),
    "SECRET_KEY": ("key", "orchestrator_secret_key", "key"),
    "REQUIRE_TASK_SIGNATURE": (False, "require_task_signature", False),
    "COST_PER_SKILL": ({"a": 1.5}, "cost_per_skill", {"a": 1.5}),
    "MAX_CONCURRENT_TASKS": (3, "max_concurrent_tasks", 3),
    "INSTALLED_SOFTWARE": ({"cuda": "12.1"}, "installed_software", {"cuda": "12.1"}),
    "S3_DEFAULT_BUCKET": ("payloads", "s3_default_bucket", "payloads"),
    "S3_REGION": ("eu-west-1", "s3_region", "eu-west-1"),
    "HEARTBEAT_INTERVAL": (5, "heartbeat_interval", 5),
    "RESULT_RETRY_INITIAL_DELAY": (2.0, "result_retry_initial_delay", 2.0),
    "REGISTRATION_RETRY_INITIAL_DELAY": (2.0, "registration_retry_initial_delay", 2.0),
    "REGISTRATION_RETRY_MAX_DELAY": (90.0, "registration_retry_max_delay", 90.0),
    "RATE_LIMIT_BACKOFF_FLOOR": (40.0, "rate_limit_wait", 40.0),
    "TASK_POLL_TIMEOUT": (20.0, "task_poll_timeout", 20.0),
    "SHUTDOWN_TIMEOUT": (12.0, "shutdown_timeout", 12.0),
    "ENABLE_WEBSOCKETS": (True, "enable_websockets", True),
    "MULTI_ORCHESTRATOR_MODE": ("ROUND_ROBIN", "multi_orchestrator_mode", "ROUND_ROBIN"),
    "STRICT_EVENT_VALIDATION": (False, "strict_event_validation", False),
    "WORKER_ENABLE_METRICS": (True, "enable_metrics", True),
    "EXTRA_CAPABILITIES": ({"zone": "a"}, "extra_capabilities", {"zone": "a"}),
}


def test_every_official_attribute_has_a_meaning_or_an_explanation() -> None:
    assert set(OFFICIAL) == {*FIELDS, *MEANINGLESS, "RESOURCES"}


@pytest.mark.parametrize("name", VALUES)
def test_an_attribute_that_is_set_reaches_the_settings_and_wins_over_the_environment(name: str) -> None:
    value, field, expected = VALUES[name]
    config = WorkerConfig()
    worker = Worker(config=config)
    setattr(config, name, value)  # after construction
    settings = worker.load_settings({"WORKER_ID": "other", "MAX_CONCURRENT_TASKS": "1", "WORKER_TOKEN": "other"})
    assert getattr(settings, field) == expected
    assert getattr(worker.config, name) == value


def test_orchestrators_are_a_list_of_dicts() -> None:
    config = WorkerConfig()
    config.ORCHESTRATORS = [
        {"url": "http://a:1", "priority": 2, "weight": 3},
        {"url": "http://b:1", "priority": 1, "weight": 1},
    ]
    found = Worker(config=config).load_settings({}).orchestrators
    assert [(each.url, each.priority, each.weight) for each in found] == [("http://b:1", 1, 1), ("http://a:1", 2, 3)]


def test_resources_and_artifacts_are_announced() -> None:
    config = WorkerConfig()
    config.RESOURCES = {"cpu_cores": 4, "ram_gb": 16.0, "devices": [{"type": "gpu", "id": "0", "model": "T4"}]}
    config.INSTALLED_ARTIFACTS = [{"name": "vit", "version": "1"}]
    settings = Worker(config=config).load_settings({})
    assert (settings.cpu_cores, settings.ram_gb, settings.devices[0].model) == (4, 16.0, "T4")
    assert settings.installed_artifacts[0].name == "vit"


def test_a_dict_may_be_changed_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTALLED_SOFTWARE", '{"cuda": "12"}')
    config = WorkerConfig()
    config.INSTALLED_SOFTWARE["ffmpeg"] = "6"
    config.ORCHESTRATORS[0]["url"] = "http://c:1"
    settings = Worker(config=config).load_settings({})
    assert settings.installed_software == {"cuda": "12", "ffmpeg": "6"}
    assert settings.orchestrators[0].url == "http://c:1"


def test_what_is_not_set_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_ID", "env-1")
    monkeypatch.setenv("TASK_FILES_DIR", "/data/tasks")
    monkeypatch.setenv("WORKER_EXTRA_ZONE", "b")
    config = WorkerConfig()
    assert (config.COST_PER_SKILL, config.INSTALLED_ARTIFACTS) == ({}, [])
    assert (config.WORKER_ID, config.TASK_FILES_DIR) == ("env-1", "/data/tasks")
    assert config.EXTRA_CAPABILITIES == {"zone": "b"}
    assert config.ORCHESTRATORS == [{"url": "http://localhost:8080", "priority": 1, "weight": 1}]


def test_an_id_is_drawn_once_and_counts_as_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKER_ID", raising=False)
    config = WorkerConfig()
    settings = Worker(config=config).load_settings({})
    assert settings.worker_id_is_random
    drawn = config.WORKER_ID
    settings = Worker(config=config).load_settings({})
    assert (settings.worker_id, settings.worker_id_is_random) == (drawn, True)


def test_none_takes_the_place_of_a_variable() -> None:
    config = WorkerConfig()
    config.S3_DEFAULT_BUCKET = None
    assert Worker(config=config).load_settings({"S3_DEFAULT_BUCKET": "b"}).s3_default_bucket is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORKER_ID", "a b"), ("MAX_CONCURRENT_TASKS", 0), ("HEARTBEAT_INTERVAL", "soon"), ("RESOURCES", {"gpu": 1})],
)
def test_a_wrong_value_is_an_error_where_it_is_set(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"WorkerConfig.{name}"):
        setattr(WorkerConfig(), name, value)


def test_a_wrong_secret_is_not_shown() -> None:
    config = WorkerConfig()
    with pytest.raises(ConfigError) as raised:
        config.WORKER_TOKEN = "hush hush"
    assert "hush" not in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        config.ORCHESTRATORS = [{"url": "http://a", "token": "hush hush"}]
    assert "hush" not in str(raised.value)
    config.WORKER_TOKEN = "hushhush"
    assert "hush" not in repr(config)


def test_validate_finds_what_does_not_go_together() -> None:
    config = WorkerConfig()
    config.validate()
    config.S3_ACCESS_KEY = "k"
    with pytest.raises(ConfigError, match="S3_SECRET_KEY"):
        config.validate()


@pytest.mark.parametrize("name", MEANINGLESS)
def test_what_means_nothing_is_named_once_with_what_to_use(name: str, caplog: pytest.LogCaptureFixture) -> None:
    config = WorkerConfig()
    with caplog.at_level(logging.WARNING):
        setattr(config, name, 1)
        setattr(config, name, 2)
    (record,) = caplog.records
    assert f"WorkerConfig.{name} has no effect: {MEANINGLESS[name]}" == record.getMessage()
    assert getattr(config, name) == 2


def test_a_misspelled_setting_is_named(caplog: pytest.LogCaptureFixture) -> None:
    config = WorkerConfig()
    config.HEARTBEAT_INTERVALL = 3
    assert "did you mean HEARTBEAT_INTERVAL?" in caplog.text
    with pytest.raises(AttributeError, match="did you mean WORKER_ID"):
        config.WORKER_IDD  # noqa: B018


class Own(WorkerConfig):
    def __init__(self, kind: str) -> None:
        self.MY_API_KEY = "before"
        self.WORKER_TYPE = kind
        super().__init__()
        self.my_limit = 3


def test_a_subclass_has_attributes_of_its_own_and_may_set_them_first(caplog: pytest.LogCaptureFixture) -> None:
    config = Own("gpu")
    assert (config.MY_API_KEY, config.my_limit) == ("before", 3)
    assert Worker(config=config).load_settings({}).worker_type == "gpu"
    assert caplog.records == []


class OfTheClass(Own):
    HEARTBEAT_INTERVAL = 2
    WORKER_TYPE = "of the class"
    LIMIT = 5


def test_settings_of_the_class_have_no_effect_and_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    config = OfTheClass("gpu")
    assert (config.HEARTBEAT_INTERVAL, config.WORKER_TYPE, config.LIMIT) == (15, "gpu", 5)
    config.starts()
    (record,) = caplog.records
    assert record.getMessage().startswith("class attribute OfTheClass.HEARTBEAT_INTERVAL has no effect")
    config.HEARTBEAT_INTERVAL = 3
    assert config.HEARTBEAT_INTERVAL == 3


@pytest.mark.parametrize("made_by", [copy.copy, copy.deepcopy])
def test_a_copy_is_set_for_itself(made_by: Callable[[WorkerConfig], WorkerConfig]) -> None:
    config = Own("gpu")
    config.COST_PER_SKILL["a"] = 0.5
    copied = made_by(config)
    copied.WORKER_TYPE, copied.COST_PER_SKILL = "cpu", {}
    settings, of_the_copy = config.load({}, {}), copied.load({}, {})
    assert (settings.worker_type, settings.cost_per_skill) == ("gpu", {"a": 0.5})
    assert (of_the_copy.worker_type, of_the_copy.cost_per_skill) == ("cpu", {})


def test_a_program_can_count_on_the_values_that_it_reads() -> None:
    config = WorkerConfig()
    assert config.INSTALLED_SOFTWARE["python"].count(".") == 1
    assert config.RESOURCES["cpu_cores"] >= 1
    assert config.RESOURCES["ram_gb"] > 0
    assert config.HOSTNAME
    assert config.IP_ADDRESS
    for name, default in MEANINGLESS_DEFAULTS.items():
        assert getattr(config, name) == default


def test_numbers_stand_for_switches_and_versions_as_in_python() -> None:
    config = WorkerConfig()
    config.ENABLE_WEBSOCKETS = 1
    config.REQUIRE_TASK_SIGNATURE = 0
    config.INSTALLED_SOFTWARE = {"cuda": 12}
    settings = Worker(config=config).load_settings({})
    assert (settings.enable_websockets, settings.require_task_signature) == (True, False)
    assert settings.installed_software == {"cuda": "12"}


@pytest.mark.parametrize("value", [["http://a:1"], [5], 5, [None]], ids=str)
def test_orchestrators_that_are_not_dicts_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"WorkerConfig\.ORCHESTRATORS must be a list of dicts"):
        WorkerConfig().ORCHESTRATORS = value


def test_a_wrong_variable_is_a_value_error_where_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_CONCURRENT_TASKS", "many")
    with pytest.raises(ValueError, match="MAX_CONCURRENT_TASKS"):
        WorkerConfig().MAX_CONCURRENT_TASKS  # noqa: B018


def test_the_config_is_there_under_its_private_name_too() -> None:
    worker: Any = Worker("img")
    assert worker._config is worker.config  # noqa: SLF001 - what programs do
    worker._config.MAX_CONCURRENT_TASKS = 3  # noqa: SLF001
    assert worker.load_settings({}).max_concurrent_tasks == 3


def test_anything_else_is_refused_as_a_config() -> None:
    given: Any = {"config": {"WORKER_ID": "a"}}
    with pytest.raises(ConfigError, match="must be a WorkerConfig"):
        Worker(**given)


def test_variables_under_other_names_are_taken_and_named() -> None:
    environ = {"SECRET_KEY": "k", "RATE_LIMIT_BACKOFF_FLOOR": "7", "POLL_BACKOFF_MAX": "9", "HOSTNAME": "box"}
    settings = Worker().load_settings(environ)
    assert (settings.orchestrator_secret_key, settings.rate_limit_wait) == ("k", 7.0)
    found = hints(environ)
    assert len(found) == 3
    assert any("SECRET_KEY is used as ORCHESTRATOR_SECRET_KEY" in each for each in found)
    assert any(each.startswith("POLL_BACKOFF_MAX has no effect") for each in found)
    assert Worker().load_settings({**environ, "ORCHESTRATOR_SECRET_KEY": "own"}).orchestrator_secret_key == "own"
    assert hints({}) == []
