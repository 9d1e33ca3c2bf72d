"""Checks messages against what a skill promised at registration; a violation is recorded as a problem.

Input: params that violate ``input_schema`` but succeeded anyway. Output: data of a success that violates
``output_schema``, and a status not among ``output_statuses``. Events: payloads that violate their schema. Such data and
events are rejected, as released orchestrators reject them (1.0b21 and 1.0b30: tried).
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.coerce import as_object, as_texts
from avtomatika_worker.protocol.messages import PROGRESS_EVENT
from avtomatika_worker.skills.validation import Problem as Complaint
from avtomatika_worker.skills.validation import Schema

_PROGRESS: Final = {
    "type": "object",
    "properties": {"progress": {"type": "number", "minimum": 0, "maximum": 1}, "message": {"type": "string"}},
    "required": ["progress"],
}
_CACHED: Final = 1000


class Contracts:
    """Compiles each schema once, keyed by its content."""

    def __init__(self) -> None:
        self._compiled: dict[bytes, Schema] = {}

    def schema_problems(self, skill: dict[str, Any]) -> list[str]:
        """Return the problems of a skill's schemas that are not usable."""
        schemas = {name: skill.get(name) for name in ("input_schema", "output_schema")}
        schemas |= {f"events_schema.{name}": schema for name, schema in as_object(skill.get("events_schema")).items()}
        found: list[str] = []
        for name, schema in schemas.items():
            try:
                self._schema(schema)
            except ValueError as error:
                found.append(f"skill {skill.get('name')}: {name} is not a usable JSON Schema: {error}")
        return found

    def input_problems(self, skill: dict[str, Any], params: dict[str, Any]) -> list[str]:
        """Return how params violate the skill's input schema."""
        return self._check(skill.get("input_schema"), params, "params")

    def input_complaints(self, skill: dict[str, Any], params: dict[str, Any]) -> tuple[Complaint, ...]:
        """Return the same, each with its path."""
        return self._problems(skill.get("input_schema"), params)

    def result_problems(self, skill: dict[str, Any], params: dict[str, Any], result: dict[str, Any]) -> list[str]:
        """Return how a result violates what the skill promised."""
        status = result.get("status") or "success"
        if status == "success":
            ran = [f"ran despite its input schema: {text}" for text in self.input_problems(skill, params)]
            return ran + self.data_problems(skill, result)
        if status in {"failure", "cancelled", *as_texts(skill.get("output_statuses"))}:
            return []
        return [f"status {status!r} is not among its output_statuses"]

    def data_problems(self, skill: dict[str, Any], result: dict[str, Any]) -> list[str]:
        """Return how the data of a success violates the skill's output schema."""
        if (result.get("status") or "success") != "success":
            return []
        return self._check(skill.get("output_schema"), result.get("data") or {}, "data")

    def event_problems(self, skill: dict[str, Any] | None, event: dict[str, Any]) -> list[str]:
        """Return how an event's payload violates its schema."""
        name = event["event_type"]
        schema = _PROGRESS if name == PROGRESS_EVENT else as_object((skill or {}).get("events_schema")).get(name)
        return self._check(schema, event.get("payload") or {}, f"payload of {name}")

    def _check(self, schema: object, value: object, what: str) -> list[str]:
        return [problem.text(what) for problem in self._problems(schema, value)]

    def _problems(self, schema: object, value: object) -> tuple[Complaint, ...]:
        try:
            compiled = self._schema(schema)
        except ValueError:
            return ()  # reported at registration
        return compiled.problems(value) if compiled else ()

    def _schema(self, schema: object) -> Schema | None:
        if schema is None:
            return None
        if not is_dict(schema):
            raise ValueError("it should be an object")
        key = orjson.dumps(schema)
        compiled = self._compiled.get(key)
        if compiled is None:
            if len(self._compiled) >= _CACHED:
                self._compiled.clear()
            compiled = self._compiled[key] = Schema(schema)
        return compiled
