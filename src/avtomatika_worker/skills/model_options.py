"""What a loader of models declares: how many may be loaded, for how long, and what is announced."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
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

_Refuse = Callable[[str], ResourceError]


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


_DEFAULTS: Final[Mapping[str, object]] = {
    "max_loaded": 1,
    "memory": None,
    "keep_alive": None,
    "unload": None,
    "warm_up": (),
    "names": None,
    "announce": None,
}


def options_of(loader: str, given: Mapping[str, object]) -> ModelOptions:
    """Return the decorator's options. Raises `ResourceError` that says what is wrong and what is allowed."""

    def refuse(problem: str) -> ResourceError:
        return ResourceError(loader, problem)

    if unknown := [each for each in given if each not in _DEFAULTS]:
        raise refuse(f"there is no option {unknown[0]!r} (options are: {', '.join(_DEFAULTS)})")
    options = {**_DEFAULTS, **given}
    most, unload, announce = options["max_loaded"], options["unload"], options["announce"]
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise refuse(f"max_loaded must be a positive integer, or None for any number, not {most!r:.80}")
    if unload is not None and not callable(unload):
        raise refuse(f"unload must be a function that takes the model, not {unload!r:.80}")
    if announce not in _ANNOUNCE:
        raise refuse(f"announce must be {PER_MODEL!r} or None, not {announce!r:.80}")
    limits = PoolLimits(most, _bytes(options["memory"], refuse), _seconds(options["keep_alive"], refuse))
    known = None if options["names"] is None else _names("names", options["names"], refuse)
    warm = _names("warm_up", options["warm_up"], refuse)
    found = ModelOptions(limits, as_any(unload), warm, known, as_any(announce))
    if problem := _contradiction(found):
        raise refuse(problem)
    return found


def _contradiction(options: ModelOptions) -> str | None:
    """Return what is wrong with the options together."""
    limits, warm, names = options.limits, options.warm_up, options.names
    if names is not None and (unknown := [each for each in warm if each not in names]):
        return f"warm_up: {', '.join(map(repr, unknown))} must be among the names ({', '.join(names)})"
    if limits.max_loaded is not None and len(warm) > limits.max_loaded:
        return f"warm_up has {len(warm)} names, more than max_loaded={limits.max_loaded}"
    if options.announce == PER_MODEL and not (names or warm):
        return f"announce={PER_MODEL!r} needs names=[…]: a skill is announced for each of them"
    if limits == PoolLimits() and names is None:
        return "max_loaded=None needs memory, keep_alive or names: else all that tasks name stays loaded"
    return None


def _names(option: str, given: object, refuse: _Refuse) -> tuple[str, ...]:
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


def _bytes(given: object, refuse: _Refuse) -> int | None:
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


def _seconds(given: object, refuse: _Refuse) -> float | None:
    allowed = "keep_alive must be a number of seconds, or a text such as '10m', '30s' or '1h'"
    if given is None:
        return None
    found = _TIME.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is not None:
        given = float(found[1]) * _SECONDS[found[2]]
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given < math.inf:
        raise refuse(f"{allowed}, not {given!r:.80}")
    return float(given)
