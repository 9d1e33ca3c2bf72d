"""Settings written as JSON: orchestrators, devices, artifacts, software, costs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import GenericAlias
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from avtomatika_worker.config.kinds import Kind, check_token, parse_url, read_call_limit
from avtomatika_worker.policy.call_budget import CallLimit
from avtomatika_worker.protocol.messages import HardwareDevice, InstalledArtifact

_T = TypeVar("_T")

_Text = Annotated[str, Meta(min_length=1)]
_Price = Annotated[float, Meta(ge=0, le=sys.float_info.max)]  # JSON has no infinity


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorSettings:
    """One orchestrator to work for.

    ``priority``: lower numbers are polled first. ``weight``: the share of polls among equals. ``token``: its own
    token; None means the worker's. ``token_fallback`` is tried when that one is refused. ``secret_key``: the key it
    signs tasks with. ``rate_limit``: the calls that it takes, as in ``ORCHESTRATOR_RATE_LIMIT``.
    """

    url: str
    priority: int = 10
    weight: int = 1
    token: str | None = field(default=None, repr=False)
    token_fallback: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    rate_limit: str | None = None

    @property
    def call_limit(self) -> CallLimit | None:
        """``rate_limit`` as it counts calls; None where nobody knows it."""
        return None if self.rate_limit is None else read_call_limit(self.rate_limit)


# ------------------------------------------------------------------------------------------ the objects in lists
# Null and an absent key mean the default, which is that of the class that the object becomes.


class _Orchestrator(msgspec.Struct, forbid_unknown_fields=True):
    url: _Text
    priority: Annotated[int, Meta(ge=0)] | None = None
    weight: Annotated[int, Meta(ge=1)] | None = None
    token: _Text | None = None
    token_fallback: _Text | None = None
    secret_key: _Text | None = None
    rate_limit: _Text | None = None

    def __repr__(self) -> str:
        return f"_Orchestrator(url={self.url!r})"


class _Device(msgspec.Struct, forbid_unknown_fields=True):
    type: _Text
    model: _Text | None = None
    id: _Text | None = None
    properties: dict[str, Any] | None = None


class _Artifact(msgspec.Struct, forbid_unknown_fields=True):
    name: _Text
    version: _Text | None = None
    type: _Text | None = None
    properties: dict[str, Any] | None = None


def orchestrators() -> Kind:
    """A list of orchestrators, each URL once."""
    listed = _listed(_Orchestrator, OrchestratorSettings)

    def check(value: tuple[OrchestratorSettings, ...]) -> None:
        listed.check(value)
        if not value:
            raise ValueError("must list at least one orchestrator")
        for index, each in enumerate(value):
            _check_at(f"$[{index}].url", parse_url, each.url)
            for name, token in (("token", each.token), ("token_fallback", each.token_fallback)):
                if token is not None:
                    _check_at(f"$[{index}].{name}", check_token, token)
            if each.rate_limit is not None:
                _check_at(f"$[{index}].rate_limit", read_call_limit, each.rate_limit)
        urls = [each.url.rstrip("/") for each in value]
        twice = sorted({url for url in urls if urls.count(url) > 1})
        if twice:
            raise ValueError(f"must list each orchestrator once; {', '.join(twice)} is listed more than once")

    def parse(text: str) -> tuple[OrchestratorSettings, ...]:
        return tuple(replace(each, url=each.url.rstrip("/")) for each in listed.parse(text))

    return Kind(parse, listed.types, check)


def devices() -> Kind:
    """A list of hardware devices."""
    return _listed(_Device, HardwareDevice)


def artifacts() -> Kind:
    """A list of installed artifacts: models, data sets, plug-ins."""
    return _listed(_Artifact, InstalledArtifact)


def costs() -> Kind:
    """Skill name → price."""
    return _named(_Price, "a JSON object of skill names and non-negative numbers")


def software() -> Kind:
    """Name → version."""
    return _named(str, "a JSON object of names and version texts")


def loose_json(text: str) -> Any:
    """Return the JSON value of ``text``, or the text itself if it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text


def _listed(shape: type[msgspec.Struct], item: type[Any]) -> Kind:
    """A JSON list of objects of ``shape``, each of which becomes an ``item``."""
    shapes: Any = GenericAlias(tuple, (shape, ...))
    allowed = f"a JSON list of objects with {', '.join(shape.__struct_fields__)}"

    def parse(text: str) -> tuple[Any, ...]:
        objects = map(msgspec.structs.asdict, _decode(text, shapes, allowed))
        return tuple(item(**{key: value for key, value in each.items() if value not in (None, {})}) for each in objects)

    def check(value: tuple[Any, ...]) -> None:
        if not all(isinstance(element, item) for element in value):
            raise ValueError(f"must be a tuple of {item.__name__}")
        try:
            msgspec.convert(msgspec.to_builtins(value), shapes)
        except (TypeError, ValueError) as error:  # a program's values, and what JSON has no form for
            raise ValueError(f"must be {allowed}: {error}") from None

    return Kind(parse, (tuple,), check)


def _named(item: Any, allowed: str) -> Kind:
    """A JSON object of names and values of type ``item``."""

    def check(value: Mapping[str, Any]) -> None:
        for name, each in value.items():
            try:
                msgspec.convert(each, item)
            except msgspec.ValidationError as error:
                raise ValueError(f"must be {allowed}: {error} - at `$[{name!r}]`") from None

    return Kind(lambda text: _decode(text, dict[str, Any], allowed), (Mapping,), check)


def _decode(text: str, shape: type[_T], allowed: str) -> _T:
    """Return the JSON value of ``text``. Raises ValueError that says what is ``allowed`` and where it is not so."""
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.ValidationError as error:
        raise ValueError(f"must be {allowed}: {error}") from None
    except (ValueError, RecursionError) as error:
        reason = f" ({error})" if isinstance(error, msgspec.DecodeError) else ""
        raise ValueError(f"must be {allowed}; this is not JSON{reason}") from None


def _check_at(path: str, check: Callable[[str], object], value: str) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f"{error} - at `{path}`") from None
