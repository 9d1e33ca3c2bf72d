"""A skill's contract, as announced to orchestrators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

JsonSchema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillContract:
    """A skill as others see it. ``properties`` is marketplace metadata, such as ``price`` and ``category``."""

    name: str
    type: str
    description: str | None = None
    version: str | None = None
    input_schema: JsonSchema | None = None
    output_schema: JsonSchema | None = None
    events_schema: Mapping[str, JsonSchema] | None = None
    output_statuses: tuple[str, ...] = ()
    properties: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def cost(self) -> float | None:
        """The price used by cost-based dispatch, or None without one."""
        price = self.properties.get("price")
        return float(price) if isinstance(price, int | float) and not isinstance(price, bool) else None


ENVELOPE_KEYS: Final = frozenset({"status", "data", "error", "metadata", "costs", "security"})
"""The keys of an envelope. A returned dict with no other keys than these ..."""

ENVELOPE_MARKS: Final = frozenset({"status", "data", "error"})
"""... and with one of these is an envelope around the data, not the data. execution/envelope.py has all rules."""

SUCCESS: Final = "success"
FAILURE: Final = "failure"
CANCELLED: Final = "cancelled"

_MOST_SEEN: Final = 20


@dataclass(frozen=True, slots=True)
class ResultContract:
    """How to read a skill's results. ``is_data``: the return type is a TypedDict, so no dict is an envelope."""

    skill: str = ""
    declared: tuple[str, ...] = ()
    is_data: bool = False
    statuses: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """Every status that a result may have."""
    _seen: set[str] = field(default_factory=set[str], init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "statuses", (SUCCESS, FAILURE, CANCELLED, *self.declared))

    def is_new(self, status: str) -> bool:
        """Whether an undeclared status is seen for the first time; at most 20 are reported."""
        if not self.skill or status in self._seen or len(self._seen) >= _MOST_SEEN:
            return False
        self._seen.add(status)
        return True
