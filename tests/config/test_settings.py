"""From variables to settings: defaults, forms, bounds, and every problem at once."""

from __future__ import annotations

import dataclasses
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.config import (
    LogFormat,
    LogLevel,
    MultiOrchestratorMode,
    OrchestratorSettings,
    SkillsOnError,
    describe,
    load_settings,
    unknown_variables,
)
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.files import progress, store_settings
from avtomatika_worker.policy import slot_tuner
from avtomatika_worker.protocol.messages import HardwareDevice, InstalledArtifact


def problems(environ: dict[str, str], **overrides: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ, **overrides)
    return caught.value.problems


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = load_settings({})
    assert settings.orchestrator_url == "http://localhost:8080"
    assert (settings.log_format, settings.log_level) == (LogFormat.TEXT, LogLevel.INFO)
    assert (settings.port, settings.shutdown_timeout) == (8083, 30.0)
    assert (settings.enable_websockets, settings.enable_metrics) == (False, False)
    assert settings.multi_orchestrator_mode is MultiOrchestratorMode.WATERFALL
    assert (settings.registration_retry_initial_delay, settings.registration_retry_max_delay) == (1.0, 60.0)
    assert (settings.task_files_dir, settings.skills_dir) == (Path("/tmp/payloads"), Path("skills"))
    assert (settings.max_concurrent_tasks, settings.heartbeat_interval, settings.task_poll_timeout) == (10, 15.0, 30.0)
    assert settings.strict_event_validation is True
    assert settings.skills_on_error is SkillsOnError.STOP
    assert settings.effective_token is None
    assert settings.devices == ()
    assert (settings.cpu_cores, settings.ram_gb) == (None, None)


def test_without_an_id_every_load_makes_another_uuid() -> None:
    first, second = load_settings({}).worker_id, load_settings({}).worker_id
    assert first != second
    assert str(uuid.UUID(first)) == first


def test_settings_cannot_be_changed() -> None:
    settings = load_settings({"COST_PER_SKILL": '{"a": 1}'})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.cost_per_skill["b"] = 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("WORKER_ID", "gpu_01-b", "worker_id", "gpu_01-b"),
        ("WORKER_TYPE", "image-processor", "worker_type", "image-processor"),
        ("WORKER_TOKEN", "s3cret\n", "token", "s3cret"),
        ("ORCHESTRATOR_URL", "https://host:8443/prefix/", "orchestrator_url", "https://host:8443/prefix"),
        ("ORCHESTRATOR_URL", "http://[::1]:8080", "orchestrator_url", "http://[::1]:8080"),
        ("MULTI_ORCHESTRATOR_MODE", "round_robin", "multi_orchestrator_mode", MultiOrchestratorMode.ROUND_ROBIN),
        ("LOG_FORMAT", "JSON", "log_format", LogFormat.JSON),
        ("LOG_LEVEL", "debug", "log_level", LogLevel.DEBUG),
        ("WORKER_PORT", "0", "port", 0),
        ("WORKER_SHUTDOWN_TIMEOUT", "0", "shutdown_timeout", 0.0),
        ("HEARTBEAT_INTERVAL", "2.5", "heartbeat_interval", 2.5),
        ("WORKER_SKILLS_ON_ERROR", "skip", "skills_on_error", SkillsOnError.SKIP),
        ("TASK_FILES_DIR", "/var/tmp/x", "task_files_dir", Path("/var/tmp/x")),
        ("COST_PER_SKILL", '{"resize": 0.5}', "cost_per_skill", {"resize": 0.5}),
        ("INSTALLED_SOFTWARE", '{"ffmpeg": "7.1"}', "installed_software", {"ffmpeg": "7.1"}),
        ("CPU_CORES", "12", "cpu_cores", 12),
        ("RAM_GB", "7.5", "ram_gb", 7.5),
    ],
)
def test_a_variable_becomes_its_field(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(load_settings({variable: text}), field) == value


@pytest.mark.parametrize("text", ["true", "1", "YES", "On"])
def test_words_for_yes(text: str) -> None:
    assert load_settings({"WORKER_ENABLE_METRICS": text}).enable_metrics is True


@pytest.mark.parametrize("text", ["false", "0", "No", "OFF"])
def test_words_for_no(text: str) -> None:
    assert load_settings({"STRICT_EVENT_VALIDATION": text}).strict_event_validation is False


def test_empty_and_blank_variables_are_unset() -> None:
    environ = {row.variable: " " for row in describe()} | {"WORKER_EXTRA_X": ""}
    assert load_settings(environ, worker_id="w") == load_settings({}, worker_id="w")


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("WORKER_ID", "a b", "1 to 128 characters"),
        ("WORKER_ID", "x" * 129, "1 to 128 characters"),
        ("ORCHESTRATOR_URL", "localhost:8080", "URL"),
        ("ORCHESTRATOR_URL", "ftp://host", "URL"),
        ("ORCHESTRATOR_URL", "http://", "URL"),
        ("ORCHESTRATOR_URL", "http://host:99999", "URL"),
        ("ORCHESTRATOR_URL", "http://[::1", "URL"),
        ("ORCHESTRATOR_URL", "http://host#x=1", "query, a fragment"),
        ("MULTI_ORCHESTRATOR_MODE", "RANDOM", "WATERFALL, ROUND_ROBIN, FAILOVER"),
        ("MAX_CONCURRENT_TASKS", "0", "at least 1"),
        ("MAX_CONCURRENT_TASKS", "1_0", "whole number"),
        ("MAX_CONCURRENT_TASKS", "1.5", "whole number"),
        ("HEARTBEAT_INTERVAL", "0", "greater than 0"),
        ("HEARTBEAT_INTERVAL", "nan", "greater than 0"),
        ("HEARTBEAT_INTERVAL", "inf", "greater than 0"),
        ("HEARTBEAT_INTERVAL", "1_0", "greater than 0"),
        ("HEARTBEAT_INTERVAL", "\uff11", "greater than 0"),
        ("WORKER_HEALTH_HOST", "\udcff", "valid host"),
        ("WORKER_HEALTH_HOST", "a\0b", "valid host"),
        ("WORKER_HEALTH_HOST", "a b", "valid host"),
        ("WORKER_HEALTH_HOST", "a..b", "valid host"),
        ("WORKER_HEALTH_HOST", "x" * 64, "labels have 1 to 63 characters"),
        ("WORKER_HEALTH_HOST", "unix:/a\0b", "a path after unix:"),
        ("ORCHESTRATOR_URL", "http://a..b", "valid host"),
        ("ORCHESTRATOR_URL", f"http://{'x' * 64}.test/", "labels have 1 to 63 characters"),
        ("ORCHESTRATOR_URL", "http://host/\udcff", "UTF-8"),
        ("WORKER_TYPE", "\udcff", "UTF-8"),
        ("WORKER_SHUTDOWN_TIMEOUT", "-1", "at least 0"),
        ("WORKER_PORT", "65536", "at most 65535"),
        ("WORKER_PORT", "tcp://10.0.0.1:8083", "enableServiceLinks"),
        ("LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("WORKER_ENABLE_WEBSOCKETS", "maybe", "true or false"),
        ("COST_PER_SKILL", '{"a": "b"}', "numbers"),
        ("COST_PER_SKILL", '{"a": NaN}', "not JSON"),
        ("INSTALLED_SOFTWARE", '{"a": 1}', "version"),
        ("INSTALLED_ARTIFACTS", '[{"version": "1"}]', "Object missing required field `name` - at `$[0]`"),
        ("INSTALLED_ARTIFACTS", "{}", "JSON list"),
        ("WORKER_DEVICES", '[{"type": "gpu", "vram": 8}]', "Object contains unknown field `vram` - at `$[0]`"),
        ("WORKER_DEVICES", '[{"type": "gpu", "properties": {"n": 1e999}}]', "out of range"),
        ("WORKER_DEVICES", '[{"type": "gpu"}', "this is not JSON (Input data was truncated)"),
        ("WORKER_DEVICES", '[{"type": "gpu", "properties": {"a": ' + "[" * 100_000, "this is not JSON"),
        ("COST_PER_SKILL", '{"a": 1, "b": -1}', "Expected `float` >= 0.0 - at `$['b']`"),
        ("WORKER_DEVICES", "[{", "not JSON"),
        ("TLS_CA_PATH", "/nowhere/ca.pem", "existing file"),
    ],
)
def test_a_wrong_value_is_one_problem_naming_variable_value_and_what_is_allowed(
    variable: str, text: str, allowed: str
) -> None:
    (problem,) = problems({variable: text})
    assert problem.startswith(f"{variable}={text!r}"[: len(variable) + 100])
    assert allowed in problem


def test_all_problems_are_reported_at_once_in_the_order_of_the_table() -> None:
    found = problems({"CPU_CORES": "x", "WORKER_ID": "?", "WORKER_PORT": "x", "RESULT_RETRY_MAX_DELAY": "0.1"})
    assert [problem.split("=")[0] for problem in found] == [
        "WORKER_ID",
        "WORKER_PORT",
        "CPU_CORES",
        "RESULT_RETRY_MAX_DELAY",
    ]


@pytest.mark.parametrize("family", ["REGISTRATION_RETRY", "RESULT_RETRY"])
def test_the_longest_delay_is_not_below_the_first(family: str) -> None:
    (problem,) = problems({f"{family}_INITIAL_DELAY": "5", f"{family}_MAX_DELAY": "2"})
    assert problem == f"{family}_MAX_DELAY=2: must be at least {family}_INITIAL_DELAY, which is 5"


def test_a_broken_value_does_not_cause_a_second_problem_in_its_pair() -> None:
    (problem,) = problems({"RESULT_RETRY_INITIAL_DELAY": "x", "RESULT_RETRY_MAX_DELAY": "0.5"})
    assert problem.startswith("RESULT_RETRY_INITIAL_DELAY=")


def test_certificate_and_key_come_together(tmp_path: Path) -> None:
    pem = tmp_path / "cert.pem"
    pem.write_text("x")
    (problem,) = problems({"TLS_CERT_PATH": str(pem)})
    assert problem == "TLS_KEY_PATH is not set: must be set together with TLS_CERT_PATH"
    settings = load_settings({"TLS_CERT_PATH": str(pem), "TLS_KEY_PATH": str(pem)})
    assert (settings.tls_cert_path, settings.tls_key_path) == (pem, pem)


SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    "environ",
    [
        {"WORKER_TOKEN": f"{SECRET} \x01 x"},
        {"WORKER_INDIVIDUAL_TOKEN": f"{SECRET}é"},
        {"S3_SECRET_KEY": SECRET},
        {"ORCHESTRATORS_CONFIG": json.dumps([{"url": "http://h", "token": SECRET, "x": 1}])},
        {"ORCHESTRATOR_URL": f"http://user:{SECRET}@host"},
        {"ORCHESTRATOR_URL": f"http://user:{SECRET} x@host"},
        {"ORCHESTRATOR_URL": f"user:{SECRET}@host:8080"},
        {"ORCHESTRATOR_URL": f"https://host/?token={SECRET}"},
        {"S3_ENDPOINT_URL": f"https://host/?signature={SECRET}"},
        {"WORKER_FILE_HOSTS": f"user:{SECRET}@host"},
        {"WORKER_FILE_HOSTS": f"https://host/?{SECRET}"},
        {"WORKER_FILE_SOURCES": f"s3://a/ https://user:{SECRET}@host/x?{SECRET}"},
        {"WORKER_PREEMPTION": f"aws,http://user:{SECRET}@host/"},
        {"ORCHESTRATOR_URL": f"http://{'u' * 70}:{SECRET}{'p' * 100}@host"},
    ],
)
def test_problems_do_not_show_secrets(environ: dict[str, str]) -> None:
    found = problems(environ)
    assert not [problem for problem in found if SECRET in problem]
    assert next(iter(environ)) in found[0] or "S3_ACCESS_KEY" in found[0]


def test_repr_does_not_show_secrets() -> None:
    environ = {
        "WORKER_TOKEN": SECRET,
        "WORKER_INDIVIDUAL_TOKEN": SECRET,
        "S3_ACCESS_KEY": SECRET,
        "S3_SECRET_KEY": SECRET,
        "ORCHESTRATORS_CONFIG": json.dumps([{"url": "http://h", "token": SECRET}]),
    }
    settings = load_settings(environ)
    assert settings.s3_secret_key == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.orchestrators)


def test_the_individual_token_wins() -> None:
    settings = load_settings({"WORKER_TOKEN": "shared", "WORKER_INDIVIDUAL_TOKEN": "own"})
    assert settings.effective_token == "own"
    assert settings.orchestrators[0].token == "own"


def test_one_url_is_one_orchestrator() -> None:
    settings = load_settings({"ORCHESTRATOR_URL": "http://one", "WORKER_TOKEN": "t"})
    assert settings.orchestrators == (OrchestratorSettings(url="http://one", token="t"),)


def test_a_list_of_orchestrators_replaces_the_url_and_is_ordered_by_priority() -> None:
    listed = [{"url": "http://a", "token": "ta"}, {"url": "http://b/", "priority": 2, "weight": 3}]
    environ = {"ORCHESTRATORS_CONFIG": json.dumps(listed), "ORCHESTRATOR_URL": "http://c", "WORKER_TOKEN": "t"}
    assert load_settings(environ).orchestrators == (
        OrchestratorSettings(url="http://b", priority=2, weight=3, token="t"),
        OrchestratorSettings(url="http://a", priority=10, token="ta"),  # without one, it is last
    )


@pytest.mark.parametrize(
    ("listed", "allowed"),
    [
        ("[]", "at least one"),
        ('["http://a"]', "Expected `object`, got `str` - at `$[0]`"),
        ('[{"url": "http://a"}, {"url": "http://a/"}]', "http://a is listed more than once"),
        ('[{"url": "http://a", "weight": 0}]', "Expected `int` >= 1 - at `$[0].weight`"),
        ('[{"url": "http://a", "priority": true}]', "Expected `int | null`, got `bool` - at `$[0].priority`"),
        (
            '[{"url": "http://a", "prio": 1}]',
            "token, token_fallback, secret_key, rate_limit: Object contains unknown field `prio` - at `$[0]`",
        ),
        ('[{"url": "a"}]', "must be a URL such as http://host:8080 or https://host/prefix - at `$[0].url`"),
        ('[{"url": "http://a", "token": "x y"}]', "(it is sent in an HTTP header) - at `$[0].token`"),
        ('[{"url": "http://a"}, {"url": "http://b", "token": ""}]', "of length >= 1 - at `$[1].token`"),
        ('[{"url": "http://a", "token_fallback": "é"}]', "(it is sent in an HTTP header) - at `$[0].token_fallback`"),
    ],
)
def test_a_wrong_list_of_orchestrators_names_the_element(listed: str, allowed: str) -> None:
    (problem,) = problems({"ORCHESTRATORS_CONFIG": listed})
    assert allowed in problem


def test_gpu_variables_make_a_device_and_worker_devices_win() -> None:
    gpu = {"GPU_MODEL": "A100", "GPU_VRAM_GB": "80"}
    memory = {"vram_gb": 80.0, "memory_gb": 80.0}  # requirements are written against either name
    assert load_settings(gpu).devices == (HardwareDevice(type="gpu", id="0", model="A100", properties=memory),)
    listed = {"WORKER_DEVICES": '[{"type": "tpu", "id": "0", "properties": {"cores": 8}}]'}
    assert load_settings(gpu | listed).devices == (HardwareDevice(type="tpu", id="0", properties={"cores": 8}),)


def test_artifacts_have_a_version_even_when_none_is_given() -> None:
    settings = load_settings({"INSTALLED_ARTIFACTS": '[{"name": "llama", "type": "model"}]'})
    assert settings.installed_artifacts == (InstalledArtifact(name="llama", version="unknown", type="model"),)


def test_null_and_empty_properties_in_a_list_mean_the_default() -> None:
    listed = '[{"url": "http://a", "priority": null, "weight": 2, "token": null}]'
    (orchestrator,) = load_settings({"ORCHESTRATORS_CONFIG": listed}).orchestrators
    assert orchestrator == OrchestratorSettings(url="http://a", weight=2)
    devices = load_settings({"WORKER_DEVICES": '[{"type": "tpu", "id": null, "properties": {}}]'}).devices
    assert devices == (HardwareDevice(type="tpu"),)


def test_extra_capabilities_are_json_where_they_are_json() -> None:
    environ = {
        "WORKER_EXTRA_ZONE": "eu-1",
        "WORKER_EXTRA_Flags": '["a", 1]',
        "WORKER_EXTRA_LIMIT": "3",
        "WORKER_EXTRA_NAN": "[NaN]",
        "WORKER_EXTRA_HUGE": "1e999",
    }
    assert load_settings(environ).extra_capabilities == {
        "zone": "eu-1",
        "flags": ["a", 1],
        "limit": 3,
        "nan": "[NaN]",
        "huge": "1e999",
    }


def test_overrides_win_and_none_means_not_given() -> None:
    environ = {"MAX_CONCURRENT_TASKS": "3", "WORKER_PORT": "1", "WORKER_EXTRA_A": "1"}
    settings = load_settings(
        environ,
        max_concurrent_tasks=7,
        port=None,
        log_format="json",
        skills_dir="other",
        ram_gb=2,
        worker_type="",
        extra_capabilities={"b": 2},
    )
    assert (settings.max_concurrent_tasks, settings.port, settings.log_format) == (7, 1, LogFormat.JSON)
    assert (settings.skills_dir, settings.ram_gb, settings.worker_type) == (Path("other"), 2, "generic-worker")
    assert settings.extra_capabilities == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ({"max_concurrent_tasks": 0}, "max_concurrent_tasks (MAX_CONCURRENT_TASKS)=0: must be a whole number"),
        ({"max_concurrent_tasks": 1.5}, "must be int"),
        ({"max_concurrent_tasks": True}, "must be int"),
        ({"enable_metrics": 1}, "must be bool"),
        ({"worker_devices": ("gpu",)}, "must be a tuple of HardwareDevice"),
        (
            {"worker_devices": (HardwareDevice(type="gpu", properties={"a": object()}),)},
            "must be a JSON list of objects",
        ),
        ({"worker_devices": (HardwareDevice(type=""),)}, "of length >= 1 - at `$[0].type`"),
        ({"orchestrators_config": (OrchestratorSettings(url="http://a", weight=0),)}, ">= 1 - at `$[0].weight`"),
        ({"orchestrators_config": (OrchestratorSettings(url="a"),)}, "must be a URL"),
        ({"heartbeat_interval": 10**400}, "must be a number greater than 0"),
        ({"heartbeat_interval": float("nan")}, "must be a number greater than 0"),
        ({"cost_per_skill": {"a": float("inf")}}, "non-negative numbers: Expected `float` <= "),
        ({"cost_per_skill": {"a": float("nan")}}, "Expected `float` >= 0.0 - at `$['a']`"),
    ],
)
def test_overrides_are_checked_like_variables(override: dict[str, Any], allowed: str) -> None:
    (problem,) = problems({}, **override)
    assert allowed in problem


def test_an_override_of_an_unknown_setting_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="max_tasks"):
        load_settings({}, max_tasks=1)


def test_unknown_variables_are_ignored_and_likely_misspellings_are_reported() -> None:
    environ = {
        "WORKER_TOKN": "x",
        "MAX_CONCURENT_TASKS": "x",
        "WORKER_LOG_LEVEL": "x",
        "WORKER_S3_DEFAULT_BUKET": "x",
        "WORKER_SERVICE_HOST": "x",
        "WORKER_TOKEN": "x",
        "WORKER_EXTRA_TOKEN": "x",
        "PATH": "x",
    }
    load_settings(environ)
    assert unknown_variables(environ) == [
        "MAX_CONCURENT_TASKS is not a setting of the worker; did you mean MAX_CONCURRENT_TASKS?",
        "WORKER_LOG_LEVEL is not a setting of the worker; did you mean LOG_LEVEL?",
        "WORKER_S3_DEFAULT_BUKET is not a setting of the worker; did you mean S3_DEFAULT_BUCKET?",
        "WORKER_TOKN is not a setting of the worker; did you mean WORKER_TOKEN?",
    ]


def test_a_former_setting_is_named_with_the_value_that_is_fixed_now() -> None:
    environ = {"WORKER_TRANSFER_ATTEMPTS": "2", "WORKER_SLOT_TUNER_MIN_SLOTS": "2", "WORKER_SLOT_TUNER": "resource"}
    load_settings(environ)
    no_longer = "is no longer a setting of the worker; its value is fixed"
    assert unknown_variables(environ) == [
        f"WORKER_SLOT_TUNER_MIN_SLOTS {no_longer}: the tuner always leaves {slot_tuner.LEAST_SLOTS} slot",
        f"WORKER_TRANSFER_ATTEMPTS {no_longer}: a request to a store is sent up to {store_settings.ATTEMPTS} times",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transfer_part_size", f"{store_settings.PART_SIZE // 1024**2} MiB"),
        ("transfer_concurrency", f"{store_settings.CONCURRENCY} parts"),
        ("transfer_retry_initial_delay", f"{store_settings.RETRIES.initial:g} s"),
        ("transfer_retry_max_delay", f"{store_settings.RETRIES.maximum:g} s"),
        ("transfer_notice_after", f"every {progress.NOTICE_AFTER:g} s"),
        ("slot_tuner_memory_target", f"{slot_tuner.MEMORY_TARGET:g} %"),
        ("WORKER_SLOT_TUNER_CPU_TARGET", f"{slot_tuner.CPU_TARGET:g} %"),
    ],
)
def test_an_override_that_was_a_setting_is_refused_with_the_value_that_is_fixed_now(name: str, value: str) -> None:
    with pytest.raises(TypeError, match=f"no setting '{name}' any more; its value is fixed: .*{value}"):
        load_settings({}, **{name: "1"})


@given(st.dictionaries(st.sampled_from([row.variable for row in describe()]), st.text(max_size=20)))
def test_any_environment_gives_settings_or_a_config_error(environ: dict[str, str]) -> None:
    try:
        settings = load_settings(environ)
    except ConfigError:
        return
    assert settings.orchestrators
    assert settings.worker_id
