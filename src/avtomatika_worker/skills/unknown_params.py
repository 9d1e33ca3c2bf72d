"""Params that a task brings and its skill does not have: they are ignored, but not in silence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.validation import shorten

_MOST: Final = 100
"""The most names noted of a skill: they come over the wire, and there may be any number."""

_LONGEST: Final = 100
"""How much of a name is compared with those that are known."""

_READ_ELSEWHERE: Final = frozenset(
    {"additionalProperties", "allOf", "anyOf", "dependentSchemas", "if", "oneOf", "patternProperties", "propertyNames"}
    | {"$ref", "$dynamicRef", "unevaluatedProperties"}
)
"""What a schema may have that allows, refuses or reads names that are not among its properties."""


class UnknownParam(NamedTuple):
    """A param that a skill does not have, and a hint at one that it has."""

    name: str
    hint: str


class UnknownParams:
    """Finds the params that a skill does not have, each name once.

    ``schemas``: all those of its input; ``others``: names of further params that are read.
    """

    __slots__ = ("_known", "_noted")

    def __init__(self, schemas: Iterable[JsonSchema], others: Iterable[str] = ()) -> None:
        listed = list(schemas)
        clear = bool(listed) and all("properties" in each and _READ_ELSEWHERE.isdisjoint(each) for each in listed)
        names = {name for each in listed for name in as_object(each.get("properties"))}
        self._known = names.union(others) if clear else None
        self._noted: set[str] = set()

    def new_in(self, params: Mapping[str, Any]) -> Iterator[UnknownParam]:
        """Yield the unknown params not yielded before; none if the schemas do not say all that is read."""
        if self._known is None or params.keys() <= self._known:
            return
        for name in sorted(params.keys() - self._known - self._noted)[: _MOST - len(self._noted)]:
            self._noted.add(name)
            near = difflib.get_close_matches(name[:_LONGEST], self._known, n=1)
            known = shorten(", ".join(sorted(self._known)) or "none")
            yield UnknownParam(shorten(name), f"did you mean {near[0]!r}?" if near else f"its params: {known}")
