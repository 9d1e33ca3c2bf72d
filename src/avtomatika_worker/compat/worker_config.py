"""`WorkerConfig`: the settings under the official SDK's names, as attributes that a program can set."""

from __future__ import annotations

import copy
import difflib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Self

import msgspec

from avtomatika_worker.compat.former_environment import translated
from avtomatika_worker.compat.former_settings import FIELDS, MEANINGLESS, RESOURCES
from avtomatika_worker.compat.official_values import plain_fields, read_official
from avtomatika_worker.config.environment import load_settings
from avtomatika_worker.config.settings import Settings, setting_fields
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.narrowing import is_dict, is_list, is_mapping

_log: Final = logging.getLogger("avtomatika_worker")

_KNOWN: Final = (*FIELDS, "RESOURCES", *MEANINGLESS)
_TEXTS: Final = frozenset({"ORCHESTRATORS", "INSTALLED_ARTIFACTS"})
"""Attributes whose lists are parsed like the JSON in their variables."""


class InvalidConfigError(ConfigError, ValueError):
    """An invalid value set on `WorkerConfig`."""


class WorkerConfig:
    """The worker's settings under the official SDK's names: ``config.WORKER_ID``, ``config.HEARTBEAT_INTERVAL``, ….

    An attribute that was not set reads the environment; one that was set takes precedence over it. Each value is
    validated when it is set, and all of them together when the worker starts or by `validate`. Lists and dicts may be
    changed in place. Raises `ConfigError`, which is also a ``ValueError`` here, for an invalid value.
    """

    _class_values: ClassVar[frozenset[str]] = frozenset()
    _set: dict[str, Any]
    _shown: dict[str, tuple[Any, Any]]
    _named: set[str]
    _in_use: bool

    def __init_subclass__(cls) -> None:
        """Remove settings defined on the class: as in the official SDK, only those set on instances count."""
        values = {name for name in vars(cls).keys() & set(_KNOWN) if not isinstance(vars(cls)[name], property)}
        for name in values:
            delattr(cls, name)
        cls._class_values = cls._class_values | values

    def __new__(cls, *_: object, **__: object) -> Self:
        """Create the instance; a subclass may set attributes before it calls ``super().__init__()``."""
        made = super().__new__(cls)
        made._set, made._shown, made._named, made._in_use = {}, {}, set(), False
        return made

    def __copy__(self) -> Self:
        """Return a copy; setting attributes on one does not affect the other."""
        made = type(self).__new__(type(self))
        apart = {"_set": dict(self._set), "_shown": dict(self._shown), "_named": set(self._named)}
        vars(made).update({**vars(self), **apart})
        return made

    def __init__(self) -> None:  # pyright: ignore[reportInconsistentConstructor] - subclasses may take arguments
        """Create a configuration that reads the environment."""

    # ------------------------------------------------------------------------------------------ attributes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in _KNOWN:
            raise AttributeError(f"WorkerConfig has no attribute {name!r}{_alike(name)}")
        if name in self._set:
            return self._set[name]
        if name in self._shown:
            return self._shown[name][0]
        value = self._read(name)
        if is_dict(value) or is_list(value) or name == "WORKER_ID":  # may be changed in place; a random id is kept
            self._shown[name] = (value, copy.deepcopy(value))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
            return
        if name in MEANINGLESS:
            self._warn(name, f"WorkerConfig.{name} has no effect: {MEANINGLESS[name]}")
        elif name not in _KNOWN:
            if name.isupper() and (alike := _alike(name)):
                self._warn(name, f"WorkerConfig.{name} is not a setting{alike}")
            object.__setattr__(self, name, value)
            return
        else:
            _overrides(name, value)
        if self._in_use:
            self._warn(name, f"WorkerConfig.{name} was set after the start; it takes effect at the next start")
        self._set[name] = value

    def __delattr__(self, name: str) -> None:
        if name in self._set:
            del self._set[name]
        else:
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_KNOWN]

    def __repr__(self) -> str:
        return f"WorkerConfig(set: {', '.join(self._set) or 'nothing'})"

    # ------------------------------------------------------------------------------------------ as a whole

    def validate(self) -> None:
        """Validate everything, including the environment. Raises `ConfigError` with all problems."""
        self.load(os.environ, {})

    def load(self, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
        """Return the settings from ``environ``, the attributes set here and ``overrides``; later sources win.

        Raises `ConfigError`.
        """
        mine = self.overrides()
        known = {name: text for name, text in translated(environ).items() if name not in self._unset()}
        try:
            settings = load_settings(known, **{**mine, **_given(overrides)})
        except ConfigError as error:
            raise InvalidConfigError(error.problems) from None
        drawn = "WORKER_ID" not in self._set and mine.get("worker_id") == settings.worker_id
        return replace(settings, worker_id_is_random=True) if drawn else settings

    def overrides(self) -> dict[str, Any]:
        """Return what was set, as overrides for `load_settings`, by field name."""
        changed = {name: value for name, (value, before) in self._shown.items() if value != before}
        if "WORKER_ID" in self._shown and not os.environ.get("WORKER_ID", "").strip():
            changed["WORKER_ID"] = self._shown["WORKER_ID"][0]
        found: dict[str, Any] = {}
        for name, value in {**changed, **self._set}.items():
            if name not in MEANINGLESS:
                found.update(_overrides(name, value))
        return found

    def starts(self) -> None:
        """Record that the worker is starting: anything set from now on is too late."""
        for name in sorted(self._class_values - self._set.keys()):
            self._warn(name, f"class attribute {type(self).__name__}.{name} has no effect: set it on self in __init__")
        self._in_use = True

    # ------------------------------------------------------------------------------------------ inside

    def _unset(self) -> frozenset[str]:
        """Return the variables to ignore because their attributes were set to None or an empty string."""
        fields = setting_fields()
        empty = [FIELDS[name] for name, value in self._set.items() if name in FIELDS and value in (None, "")]
        return frozenset(fields[field][1].variable for field in empty if field in fields)

    def _warn(self, name: str, text: str) -> None:
        if name not in self._named:
            self._named.add(name)
            _log.warning("%s", text, extra={"action": "config_ignored"})

    def _read(self, name: str) -> Any:
        """Return the environment's value, in the official SDK's form. Raises `InvalidConfigError`."""
        try:
            return read_official(translated(os.environ), name)
        except ConfigError as error:
            raise InvalidConfigError(error.problems) from None


def _given(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in overrides.items() if value is not None}


def _overrides(name: str, value: Any) -> dict[str, Any]:
    """Return the settings that an attribute's value sets. Raises `InvalidConfigError`."""
    if name == "RESOURCES":
        if not is_mapping(value) or not value.keys() <= RESOURCES.keys():
            raise InvalidConfigError([f"WorkerConfig.RESOURCES must be a dict of {', '.join(RESOURCES)}"])
        return {
            field: _checked(
                f"RESOURCES[{key!r}]", field, _as_text(name, value[key]) if key == "devices" else value[key]
            )
            for key, field in RESOURCES.items()
            if value.get(key)
        }
    field = FIELDS[name]
    if field == "extra_capabilities":
        if not is_mapping(value):
            raise InvalidConfigError(["WorkerConfig.EXTRA_CAPABILITIES must be a dict"])
        return {field: dict(value)}
    return {} if value is None or value == "" else {field: _checked(name, field, _written(name, value))}


def _written(name: str, value: Any) -> Any:
    """Return a value in the form that the setting's field accepts."""
    if name in _TEXTS:
        return _as_text(name, value)
    if name == "INSTALLED_SOFTWARE" and is_mapping(value):
        return {key: str(each) if isinstance(each, int | float) else each for key, each in value.items()}
    return value


def _as_text(name: str, value: Any) -> Any:
    """Return a list as the JSON that its variable would contain, without fields that are None."""
    if isinstance(value, str):
        return value
    try:
        plain = msgspec.to_builtins([plain_fields(each) for each in value])
        return json.dumps(plain)
    except (TypeError, ValueError) as error:
        raise InvalidConfigError([f"WorkerConfig.{name} must be a list of dicts: {error}"]) from None


def _checked(name: str, field: str, value: Any) -> Any:
    spec = setting_fields()[field][1]
    try:
        return spec.kind.take(bool(value) if bool in spec.kind.types and value in (0, 1) else value)
    except ValueError as error:
        shown = "***" if spec.secret else f"{value!r:.120}"
        raise InvalidConfigError([f"WorkerConfig.{name} = {shown}: {error}"]) from None


def _alike(name: str) -> str:
    alike = difflib.get_close_matches(name.upper(), _KNOWN, n=1, cutoff=0.8)
    return f" (did you mean {alike[0]}?)" if alike else ""
