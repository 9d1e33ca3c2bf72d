"""What the console knows of the program whose worker it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from avtomatika_worker.protocol.redis_safe_schema import storable_schema, storable_schemas
from avtomatika_worker.skills.contract import SkillContract
from avtomatika_worker.skills.validation import without_nulls

SlotsByWorker = Mapping[str, tuple[int, int]]


class Program:
    """A program that may be edited and restarted while the console is open.

    ``skills`` are the announced parts of its skills by name, skills and fields in the author's order; ``problem`` is
    the traceback or message of what keeps it from starting, or None. ``slots`` returns, by worker id, how many slots of
    its workers run tasks and how many there are, if known. Each is replaced as a whole, from any thread.
    """

    def __init__(self, skills: Mapping[str, dict[str, Any]], slots: Callable[[], SlotsByWorker] = dict) -> None:
        self.skills: Mapping[str, dict[str, Any]] = skills
        self.problem: str | None = None
        self.slots: Callable[[], SlotsByWorker] = slots

    def started(self, skills: Mapping[str, dict[str, Any]]) -> None:
        """Take the skills of a program that could be loaded."""
        self.skills, self.problem = skills, None


def announced(contracts: Iterable[SkillContract]) -> dict[str, dict[str, Any]]:
    """Return the parts of contracts that are sent, by name, their fields in the author's order."""
    return {contract.name: _announced(contract) for contract in contracts}


def _announced(contract: SkillContract) -> dict[str, Any]:
    parts: dict[str, Any] = without_nulls(
        {
            "input_schema": storable_schema(contract.input_schema),
            "output_schema": storable_schema(contract.output_schema),
            "events_schema": storable_schemas(contract.events_schema),
            "properties": dict(contract.properties),
        }
    )
    return parts
