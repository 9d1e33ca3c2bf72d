"""Turns environment variables into ``Settings``, reporting all problems at once."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Iterator, Mapping, Set
from dataclasses import MISSING, replace
from types import MappingProxyType
from typing import Any, Final

from avtomatika_worker.config.declaring import Setting
from avtomatika_worker.config.kinds import presentable
from avtomatika_worker.config.settings import EXTRA_PREFIX, Settings, setting_fields
from avtomatika_worker.config.structured import loose_json
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.narrowing import is_mapping

_EXTRA: Final = "extra_capabilities"
# Variables that start like ours; all others belong to other programs, whatever they look like.
_FAMILIES: Final = (
    "WORKER_",
    "ORCHESTRATOR",
    "MULTI_ORCH",
    "REGISTRATION_",
    "RESULT_",
    "TASK_",
    "HEARTBEAT",
    "INSTALLED_",
    "TLS_",
    "REQUIRE_",
    "MAX_",
)
_ALIKE: Final = 0.85
_DELAYS: Final = (
    ("registration_retry_initial_delay", "registration_retry_max_delay"),
    ("result_retry_initial_delay", "result_retry_max_delay"),
)
_FIXED: Final = {
    "WORKER_TRANSFER_PART_SIZE": "parts have 8 MiB",
    "WORKER_TRANSFER_CONCURRENCY": "8 parts are transferred at the same time",
    "WORKER_TRANSFER_ATTEMPTS": "a request to a store is sent up to 5 times",
    "WORKER_TRANSFER_RETRY_INITIAL_DELAY": "a request to a store is first repeated within 0.5 s",
    "WORKER_TRANSFER_RETRY_MAX_DELAY": "a request to a store is repeated within 15 s",
    "WORKER_TRANSFER_NOTICE_AFTER": "a transfer reports its progress every 5 s",
    "WORKER_SLOT_TUNER_MEMORY_TARGET": "the tuner keeps 80 % of the memory as its limit",
    "WORKER_SLOT_TUNER_CPU_TARGET": "the tuner keeps 90 % of the CPUs as its limit",
    "WORKER_SLOT_TUNER_MIN_SLOTS": "the tuner always leaves 1 slot",
}
"""Variables that were settings once, and the values that took their place."""
_TOGETHER: Final = (("tls_cert_path", "tls_key_path"), ("s3_access_key", "s3_secret_key"))


def load_settings(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """Return the settings described by ``environ`` and ``overrides``.

    ``overrides`` are named like the fields of ``Settings`` and win over the environment; None means not given, and a
    text is parsed like a variable's. Empty and blank texts count as unset in both. Raises ConfigError with every
    problem, and TypeError for an override that is not a setting.
    """
    unknown = overrides.keys() - setting_fields().keys() - {_EXTRA}
    if unknown:
        raise TypeError("; ".join(_no_setting(name) for name in sorted(unknown)))
    problems: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, (_, spec) in setting_fields().items():
        try:
            value = _value(spec, environ, name, overrides.get(name))
        except ValueError as error:
            problems[name] = str(error)
        else:
            if value is not None:
                values[name] = _frozen(value)
    values[_EXTRA] = MappingProxyType(extra_capabilities(environ) | dict(overrides.get(_EXTRA) or {}))
    values["port_is_asked_for"] = "port" in values
    values["worker_id_is_random"] = "worker_id" not in values
    values.setdefault("worker_id", str(uuid.uuid4()))
    settings = Settings(**values)
    found = [*problems.values(), *_cross_check(settings, broken=problems.keys())]
    if found:
        raise ConfigError(found)
    return settings


def read_setting(environ: Mapping[str, str], name: str) -> Any:
    """Return the value of the field ``name``, or its default if unset. Raises ConfigError."""
    declared, spec = setting_fields()[name]
    try:
        value = _value(spec, environ, name, None)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    if value is not None:
        return value
    return declared.default if declared.default_factory is MISSING else declared.default_factory()


def with_suffix(settings: Settings, suffix: str, base_id: str) -> Settings:
    """Return the settings of one of several processes: its id ends in its suffix, such as its number.

    ``base_id`` precedes the suffix if the settings name no id. Raises ConfigError for an id that becomes too long.
    """
    worker_id = f"{base_id if settings.worker_id_is_random else settings.worker_id}-{suffix}"
    try:
        setting_fields()["worker_id"][1].kind.take(worker_id)
    except ValueError as error:
        raise ConfigError([f"WORKER_ID={worker_id!r} with the process's number: {error}"]) from None
    return replace(settings, worker_id=worker_id)


def _no_setting(name: str) -> str:
    """Return the error for a name without a field; variables' names are often mistaken for fields'."""
    for variable, value in _FIXED.items():
        if name in {variable, variable.removeprefix("WORKER_").lower()}:
            return f"there is no setting {name!r} any more; its value is fixed: {value}"
    known = {**{field: field for field in setting_fields()}, **{_variable(field): field for field in setting_fields()}}
    alike = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {known[alike[0]]}?" if alike else "docs/configuration.md lists the variables"
    return f"there is no setting {name!r}; {hint}"


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return one sentence for each variable whose name is close to a setting's, or was one's."""
    known = [spec.variable for _, spec in setting_fields().values()]
    messages: list[str] = []
    for name in sorted(environ):
        if name in _FIXED:
            messages.append(f"{name} is no longer a setting of the worker; its value is fixed: {_FIXED[name]}")
            continue
        if name in known or name.startswith(EXTRA_PREFIX) or not name.upper().startswith(_FAMILIES):
            continue
        # Some settings have the prefix, such as WORKER_TOKEN, and others do not, such as LOG_LEVEL.
        spellings = (name.upper(), name.upper().removeprefix("WORKER_"))
        alike = [each for spelling in spellings for each in difflib.get_close_matches(spelling, known, 1, _ALIKE)]
        if alike:
            messages.append(f"{name} is not a setting of the worker; did you mean {alike[0]}?")
    return messages


def _value(spec: Setting, environ: Mapping[str, str], name: str, override: Any) -> Any:
    """Return the setting's value, or None if unset. Raises ValueError with the whole problem."""
    if override is not None and not (isinstance(override, str) and not override.strip()):
        where, shown = f"{name} ({spec.variable})", override
    else:
        # Secrets mounted from files often end in a line break.
        where, shown = spec.variable, environ.get(spec.variable, "").strip()
        if not shown:
            return None
    try:
        return spec.kind.take(shown)
    except ValueError as error:
        value = "***" if spec.secret else presentable(shown)
        raise ValueError(f"{where}={value}: {error}") from None


def _frozen(value: Any) -> Any:
    return MappingProxyType(dict(value)) if is_mapping(value) else value


def extra_capabilities(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the custom capabilities."""
    return {
        name.removeprefix(EXTRA_PREFIX).lower(): loose_json(value.strip())
        for name, value in environ.items()
        if name.startswith(EXTRA_PREFIX) and name != EXTRA_PREFIX and value.strip()
    }


def _cross_check(settings: Settings, broken: Set[str]) -> list[str]:
    """Yield conflicts between settings that are valid by themselves; pairs with a ``broken`` one are skipped."""
    return [
        *_delay_problems(settings, broken),
        *_pair_problems(settings, broken),
        *_lease_problems(settings, broken),
    ]


def _delay_problems(settings: Settings, broken: Set[str]) -> Iterator[str]:
    for initial, longest in _DELAYS:
        if broken.isdisjoint((initial, longest)) and getattr(settings, longest) < getattr(settings, initial):
            least = f"{_variable(initial)}, which is {getattr(settings, initial):g}"
            yield f"{_variable(longest)}={getattr(settings, longest):g}: must be at least {least}"


def _pair_problems(settings: Settings, broken: Set[str]) -> Iterator[str]:
    for pair in _TOGETHER:
        missing = [name for name in pair if getattr(settings, name) is None]
        if broken.isdisjoint(pair) and len(missing) == 1:
            other = pair[0] if missing[0] == pair[1] else pair[1]
            yield f"{_variable(missing[0])} is not set: must be set together with {_variable(other)}"


def _lease_problems(settings: Settings, broken: Set[str]) -> Iterator[str]:
    lease, beat = settings.lease_lost_after, 2 * settings.heartbeat_interval
    if lease is not None and lease < beat and broken.isdisjoint(("lease_lost_after", "heartbeat_interval")):
        least = f"twice {_variable('heartbeat_interval')}, which makes {beat:g}"
        yield f"{_variable('lease_lost_after')}={lease:g}: must be at least {least}"


def _variable(name: str) -> str:
    return setting_fields()[name][1].variable
