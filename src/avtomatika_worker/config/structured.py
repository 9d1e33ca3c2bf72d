"""Settings written as JSON: orchestrators, devices, artifacts, software, costs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from avtomatika_worker.config.kinds import Kind, check_token, parse_url
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.messages import HardwareDevice, InstalledArtifact

_ORCHESTRATOR_KEYS: Final = "url, priority, weight, token, token_fallback, secret_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorSettings:
    """One orchestrator to work for.

    ``priority``: lower numbers are polled first. ``weight``: the share of polls among equals. ``token``: its own
    token; None means the worker's. ``token_fallback`` is tried when that one is refused. ``secret_key``: the key it
    signs tasks with.
    """

    url: str
    priority: int = 1
    weight: int = 1
    token: str | None = field(default=None, repr=False)
    token_fallback: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)


class _Reader:
    """Takes the keys of one JSON object, one by one; leftover keys are a problem."""

    def __init__(self, value: object, where: str) -> None:
        if not is_dict(value):
            raise ValueError(f"{where} must be an object")
        self._rest: dict[str, Any] = dict(value)
        self._where = where

    def take(self, key: str, default: Any, check: Callable[[Any], bool], allowed: str) -> Any:
        """Return the value of ``key``, or ``default`` if absent or null. Raises ValueError."""
        value = self._rest.pop(key, None)
        if value is None:
            if default is ...:
                raise ValueError(f"{self._where} lacks {key!r}")
            return default
        if not check(value):
            raise ValueError(f"{self._where}: {key!r} must be {allowed}")
        return value

    def text(self, key: str, default: Any = None) -> Any:
        """Return a non-empty text."""
        return self.take(key, default, lambda value: isinstance(value, str) and bool(value), "a text")

    def whole(self, key: str, default: int, least: int) -> int:
        """Return a whole number of at least ``least``."""
        return int(
            self.take(key, default, lambda value: _is_int(value) and value >= least, f"a whole number ≥ {least}")
        )

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object; absent means empty."""
        return dict(self.take(key, {}, lambda value: isinstance(value, dict), "an object"))

    def finish(self, known: str) -> None:
        """Raise ValueError if keys are left over."""
        if self._rest:
            unknown = ", ".join(repr(key) for key in self._rest)
            raise ValueError(f"{self._where} has unknown keys {unknown} (known: {known})")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number that JSON does not have")
    return value


def _strict_json(text: str) -> Any:
    """Return the JSON value of ``text``; NaN and infinities are refused, as no orchestrator accepts them."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _load(text: str, shape: type, allowed: str) -> Any:
    """Return the JSON value of ``text``, of type ``shape``. Raises ValueError that says what is ``allowed``."""
    try:
        value = _strict_json(text)
    except (ValueError, RecursionError) as error:
        hint = f" ({error.msg} at character {error.pos + 1})" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"must be {allowed}; this is not JSON{hint}") from None
    if not isinstance(value, shape):
        raise ValueError(f"must be {allowed}")
    return value


def _items(make: Callable[[object, str], Any], item: type, allowed: str) -> Kind:
    """A JSON list, each element built by ``make(element, where)``."""

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(make(element, f"[{index}]") for index, element in enumerate(_load(text, list, allowed)))

    def check(value: tuple[Any, ...]) -> None:
        if not all(isinstance(element, item) for element in value):
            raise ValueError(f"must be a tuple of {item.__name__}")

    return Kind(parse, (tuple,), check)


def _orchestrator(value: object, where: str) -> OrchestratorSettings:
    reader = _Reader(value, where)
    url, secret_key = reader.text("url", ...), reader.text("secret_key")
    tokens = {key: reader.text(key) for key in ("token", "token_fallback")}
    priority, weight = reader.whole("priority", 1, 0), reader.whole("weight", 1, 1)
    reader.finish(_ORCHESTRATOR_KEYS)
    try:
        url = parse_url(url)
    except ValueError as error:
        raise ValueError(f"{where}: 'url' {error}") from None
    for key, token in tokens.items():
        try:
            if token is not None:
                check_token(token)
        except ValueError as error:
            raise ValueError(f"{where}: {key!r} {error}") from None
    return OrchestratorSettings(url=url, priority=priority, weight=weight, secret_key=secret_key, **tokens)


def orchestrators() -> Kind:
    """A list of orchestrators, each URL once."""
    kind = _items(_orchestrator, OrchestratorSettings, f"a JSON list of objects with {_ORCHESTRATOR_KEYS}")

    def check(value: tuple[OrchestratorSettings, ...]) -> None:
        kind.check(value)
        if not value:
            raise ValueError("must list at least one orchestrator")
        urls = [orchestrator.url for orchestrator in value]
        twice = sorted({url for url in urls if urls.count(url) > 1})
        if twice:
            raise ValueError(f"must list each orchestrator once; {', '.join(twice)} is listed more than once")

    return Kind(kind.parse, kind.types, check)


def _device(value: object, where: str) -> HardwareDevice:
    reader = _Reader(value, where)
    kind, model, unit = reader.text("type", ...), reader.text("model"), reader.text("id")
    properties = reader.mapping("properties") or None
    reader.finish("type, model, id, properties")
    return HardwareDevice(type=kind, model=model, id=unit, properties=properties)


def devices() -> Kind:
    """A list of hardware devices."""
    return _items(_device, HardwareDevice, "a JSON list of objects with type, model, id, properties")


def _artifact(value: object, where: str) -> InstalledArtifact:
    reader = _Reader(value, where)
    name, version, kind = reader.text("name", ...), reader.text("version", "unknown"), reader.text("type")
    properties = reader.mapping("properties") or None
    reader.finish("name, version, type, properties")
    return InstalledArtifact(name=name, version=version, type=kind, properties=properties)


def artifacts() -> Kind:
    """A list of installed artifacts: models, data sets, plug-ins."""
    return _items(_artifact, InstalledArtifact, "a JSON list of objects with name, version, type, properties")


def _named(value_ok: Callable[[Any], bool], allowed: str) -> Kind:
    """A JSON object whose values all pass ``value_ok``."""

    def check(value: Mapping[str, Any]) -> None:
        wrong = [name for name, item in value.items() if not value_ok(item)]
        if wrong:
            raise ValueError(f"must be {allowed}; wrong: {', '.join(map(repr, wrong))}")

    return Kind(lambda text: dict(_load(text, dict, allowed)), (Mapping,), check)


def costs() -> Kind:
    """Skill name → price."""

    def price(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0

    return _named(price, "a JSON object of skill names and non-negative numbers")


def software() -> Kind:
    """Name → version."""
    return _named(lambda value: isinstance(value, str), "a JSON object of names and version texts")


def loose_json(text: str) -> Any:
    """Return the JSON value of ``text``, or the text itself if it is not JSON."""
    try:
        return _strict_json(text)
    except (ValueError, RecursionError):
        return text
