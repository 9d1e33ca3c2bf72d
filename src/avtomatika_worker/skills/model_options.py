"""What a loader of models declares: how many may be loaded, for how long, and what is announced."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from avtomatika_worker.errors import ResourceError
from avtomatika_worker.narrowing import as_any, is_collection
from avtomatika_worker.policy.model_pool import PoolLimits

PER_MODEL: Final = "per_model"
_ANNOUNCE: Final = (None, PER_MODEL)

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)")
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_PREFIXES: Final = "KMGT"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_NAME: Final = 1000


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The decorator's options, checked. ``names``: all that there are, or None where any name may be asked for."""

    limits: PoolLimits
    unload: Callable[[Any], Any] | None = None
    warm_up: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    announce: str | None = None

    @property
    def announced(self) -> tuple[str, ...]:
        """The names that a skill of their own is announced for."""
        return (self.names or self.warm_up) if self.announce == PER_MODEL else ()


def checked_options(
    loader: str,
    *,
    max_loaded: object,
    memory: object,
    keep_alive: object,
    unload: object,
    warm_up: object,
    names: object,
    announce: object,
) -> ModelOptions:
    """Return the options. Raises `ResourceError` that says what is wrong and what is allowed."""

    def refuse(problem: str) -> ResourceError:
        return ResourceError(loader, problem)

    if max_loaded is not None and (not isinstance(max_loaded, int) or isinstance(max_loaded, bool) or max_loaded < 1):
        raise refuse(f"max_loaded must be a positive integer, or None for any number, not {max_loaded!r:.80}")
    if unload is not None and not callable(unload):
        raise refuse(f"unload must be a function that takes the model, not {unload!r:.80}")
    if announce not in _ANNOUNCE:
        raise refuse(f"announce must be {PER_MODEL!r} or None, not {announce!r:.80}")
    limits = PoolLimits(max_loaded, _bytes(memory, refuse), _seconds(keep_alive, refuse))
    known = None if names is None else _names("names", names, refuse)
    warm = _names("warm_up", warm_up, refuse)
    if known is not None and (unknown := [each for each in warm if each not in known]):
        raise refuse(f"warm_up: {', '.join(map(repr, unknown))} must be among the names ({', '.join(known)})")
    if max_loaded is not None and len(warm) > max_loaded:
        raise refuse(f"warm_up has {len(warm)} names, more than max_loaded={max_loaded}")
    if announce == PER_MODEL and not (known or warm):
        raise refuse(f"announce={PER_MODEL!r} needs names=[…]: a skill is announced for each of them")
    if limits == PoolLimits() and known is None:
        raise refuse("max_loaded=None needs memory, keep_alive or names: else all that tasks name stays loaded")
    return ModelOptions(limits, unload, warm, known, as_any(announce))


def _names(option: str, given: object, refuse: Callable[[str], ResourceError]) -> tuple[str, ...]:
    if isinstance(given, str) or not is_collection(given):
        raise refuse(f"{option} must be a list of names, not {given!r:.80}")
    names: list[str] = []
    for each in given:
        if not isinstance(each, str) or not 0 < len(each) <= _LONGEST_NAME:
            raise refuse(f"{option}: a name is a text of 1 to {_LONGEST_NAME} characters, not {each!r:.80}")
        names.append(each)
    if twice := _repeated(names):
        raise refuse(f"{option} has {twice!r} twice")
    return tuple(names)


def _repeated(names: Iterable[str]) -> str | None:
    seen = set[str]()
    for each in names:
        if each in seen:
            return each
        seen.add(each)
    return None


def _bytes(given: object, refuse: Callable[[str], ResourceError]) -> int | None:
    allowed = "memory must be a positive number of bytes, or a text such as '8GiB' or '500MB'"
    if given is None:
        return None
    found = _SIZE.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is not None:
        unit = found[2]
        base = 1024 if "i" in unit else 1000
        given = round(float(found[1]) * base ** (0 if unit == "B" else 1 + _PREFIXES.index(unit[0])))
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise refuse(f"{allowed}, not {given!r:.80}")
    return given


def _seconds(given: object, refuse: Callable[[str], ResourceError]) -> float | None:
    allowed = "keep_alive must be a number of seconds, or a text such as '10m', '30s' or '1h'"
    if given is None:
        return None
    found = _TIME.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is not None:
        given = float(found[1]) * _SECONDS[found[2]]
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given < math.inf:
        raise refuse(f"{allowed}, not {given!r:.80}")
    return float(given)
