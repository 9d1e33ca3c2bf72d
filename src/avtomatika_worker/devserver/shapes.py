"""The required fields of messages and their types (RXON.md, "Messages"). Null counts as absent."""

from __future__ import annotations

from typing import Any, Final

from avtomatika_worker.skills.validation import Schema

_Json = dict[str, Any]


def _null_or(schema: _Json) -> _Json:
    if "type" not in schema:
        return {"anyOf": [{"type": "null"}, schema]}
    return {**schema, "type": [schema["type"], "null"]}  # the other keywords do not apply to null


def _object(required: dict[str, _Json] | None = None, optional: dict[str, _Json] | None = None) -> _Json:
    required, optional = required or {}, optional or {}
    properties = required | {name: _null_or(schema) for name, schema in optional.items()}
    return {"type": "object", "properties": properties, "required": list(required)}


def _array(items: _Json) -> _Json:
    return {"type": "array", "items": items}


_TEXT: Final[_Json] = {"type": "string"}
_NUMBER: Final[_Json] = {"type": "number"}
_ANY_OBJECT: Final[_Json] = {"type": "object"}
_ID: Final[_Json] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}
_TASK_ID: Final[_Json] = {"type": "string", "minLength": 1, "maxLength": 256}
_SECURITY: Final = _object({}, {"signature": _TEXT, "signer_id": _TEXT, "identity_chain": _array(_TEXT)})
_SIGNED: Final[dict[str, _Json]] = {"timestamp": _NUMBER, "security": _SECURITY, "metadata": _ANY_OBJECT}

_SKILL: Final = _object(
    {"name": _ID},
    {
        "type": _ID,
        "description": _TEXT,
        "version": _TEXT,
        "input_schema": _ANY_OBJECT,
        "output_schema": _ANY_OBJECT,
        "events_schema": {"type": "object", "additionalProperties": _ANY_OBJECT},
        "output_statuses": _array(_TEXT),
        "schema_dialect": _TEXT,
        "properties": _ANY_OBJECT,
    },
)
_DEVICE: Final = _object(
    {"type": _TEXT}, {"model": _TEXT, "id": _TEXT, "properties": _ANY_OBJECT, "metrics": _ANY_OBJECT}
)
_ARTIFACT: Final = _object({"name": _TEXT}, {"version": _TEXT, "type": _TEXT, "properties": _ANY_OBJECT})
_CAPABILITIES: Final = _object(
    {},
    {
        "hostname": _TEXT,
        "ip_address": _TEXT,
        "cost_per_skill": {"type": "object", "additionalProperties": _NUMBER},
        "s3_config_hash": _TEXT,
        "extra": _ANY_OBJECT,
    },
)
_FILE: Final = _object({"uri": _TEXT, "size": {"type": "integer"}}, {"etag": _TEXT, "metadata": _ANY_OBJECT})
_USAGE: Final = _object(
    {"cpu_load_percent": _NUMBER, "ram_used_gb": _NUMBER},
    {"devices_usage": _array(_object({"unit_id": _TEXT, "load_percent": _NUMBER}, {"metrics": _ANY_OBJECT}))},
)

SHAPES: Final = {
    "register": Schema(
        _object(
            {"worker_id": _ID, "worker_type": _ID, "supported_skills": _array(_SKILL)},
            {
                **_SIGNED,
                "available_skills": _array(_ID),
                "hot_skills": _array(_ID),
                "resources": _object({}, {"devices": _array(_DEVICE), "properties": _ANY_OBJECT}),
                "installed_software": {"type": "object", "additionalProperties": _TEXT},
                "installed_artifacts": _array(_ARTIFACT),
                "capabilities": _CAPABILITIES,
                "skills_hash": _TEXT,
            },
        )
    ),
    "heartbeat": Schema(
        _object(
            {"worker_id": _ID, "status": {"enum": ["idle", "busy", "draining", "offline"]}},
            {
                **_SIGNED,
                "usage": _USAGE,
                "current_tasks": _array(_TEXT),
                "supported_skills": _array(_SKILL),
                "available_skills": _array(_ID),
                "hot_skills": _array({"anyOf": [_ID, _SKILL]}),
                "hot_cache": _array(_TEXT),
                "skill_dependencies": {"type": "object", "additionalProperties": _array(_TEXT)},
                "skills_hash": _TEXT,
                "capabilities": _ANY_OBJECT,
            },
        )
    ),
    "result": Schema(
        _object(
            {"job_id": _TASK_ID, "task_id": _TASK_ID, "worker_id": _ID},
            {
                **_SIGNED,
                "origin_worker_id": _ID,
                "status": {"type": "string", "minLength": 1},
                "data": _ANY_OBJECT,
                "error": _object({"code": _TEXT, "message": _TEXT}, {"details": _ANY_OBJECT}),
                "data_metadata": {"type": "object", "additionalProperties": _FILE},
                "costs": _ANY_OBJECT,
            },
        )
    ),
    "event": Schema(
        _object(
            {"event_id": _TASK_ID, "worker_id": _ID, "origin_worker_id": _ID, "event_type": _TASK_ID},
            {
                **_SIGNED,
                "payload": _ANY_OBJECT,
                "origin_task_id": _TEXT,
                "bubbling_chain": _array(_TEXT),
                "target_job_id": _TEXT,
                "target_task_id": _TEXT,
                "trace_context": _ANY_OBJECT,
                "priority": _NUMBER,
            },
        )
    ),
}
"""Call → the schema of its body."""


def shape_problems(call: str, message: dict[str, Any]) -> list[str]:
    """Return what is wrong with a message's fields."""
    return [problem.text(call) for problem in SHAPES[call].problems(message)]
