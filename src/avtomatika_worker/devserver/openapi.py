"""The client API of the embedded orchestrator, described for machines: OpenAPI 3.1."""

from __future__ import annotations

from typing import Any, Final

_Json = dict[str, Any]

_JOB_ID: Final[_Json] = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}
_TEXT: Final[_Json] = {"type": "string"}
_OBJECT: Final[_Json] = {"type": "object"}
_SECONDS: Final[_Json] = {"type": "number", "minimum": 0, "exclusiveMaximum": 1e9}


def description(version: str) -> _Json:
    """Return the document; ``version`` is the protocol's."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Embedded orchestrator of avtomatika-worker",
            "version": version,
            "description": "For development and tests: in memory, without authentication of clients.",
        },
        "paths": {
            "/api/jobs": {"get": _list_jobs(), "post": _submit()},
            "/api/jobs/{job_id}": {"get": _get_job()},
            "/api/jobs/{job_id}/cancel": {"post": _cancel()},
            "/api/jobs/{job_id}/events": {"get": _stream("The job's changes until its end.", [_JOB_ID])},
            "/api/events": {"get": _stream("Every change.", [])},
            "/api/workers": {"get": _list("workers", "The registered workers.")},
            "/api/skills": {"get": _list("skills", "The workers' skills by name.")},
        },
        "components": {"schemas": {"NewJob": _NEW_JOB, "Job": _JOB, "Error": _ERROR}},
    }


_PROBLEM: Final[_Json] = {
    "type": "object",
    "properties": {"path": {"type": "string", "description": "Such as $.size.width."}, "problem": _TEXT},
    "required": ["path", "problem"],
}
_ERROR: Final[_Json] = {
    "type": "object",
    "properties": {"error": _TEXT, "problems": {"type": "array", "items": _PROBLEM}},
    "required": ["error"],
}
_NEW_JOB: Final[_Json] = {
    "type": "object",
    "properties": {
        "skill": {"type": "string", "minLength": 1},
        "params": {"type": ["object", "null"], "default": {}},
        "priority": {"type": ["number", "null"], "default": 0, "description": "Higher first."},
        "deadline": {"type": ["number", "null"], "description": "Unix time."},
        "metadata": {"type": ["object", "null"]},
    },
    "required": ["skill"],
    "additionalProperties": False,
}
_JOB: Final[_Json] = {
    "type": "object",
    "properties": {
        "job_id": _TEXT,
        "skill": _TEXT,
        "state": {"enum": ["queued", "running", "finished", "failed", "cancelled", "quarantined"]},
        "params": _OBJECT,
        "attempts": {"type": "integer"},
        "events": {"type": "array", "items": _OBJECT},
    },
    "required": ["job_id", "skill", "state", "params", "attempts"],
}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(text: str, schema: _Json) -> _Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _errors(**texts: str) -> _Json:
    """Return the answers that are errors; their names are the statuses, as ``s404``."""
    return {status.removeprefix("s"): _answer(text, _ref("Error")) for status, text in texts.items()}


def _query(name: str, schema: _Json, text: str) -> _Json:
    return {"name": name, "in": "query", "schema": schema, "description": text}


def _submit() -> _Json:
    location = {"Location": {"schema": _TEXT}}
    accepted = {"type": "object", "properties": {"job_id": _TEXT}, "required": ["job_id"]}
    return {
        "summary": "Submit a job.",
        "parameters": [
            _query("validate", _TEXT, "1: check the params against the skill's schema first."),
            _query(
                "wait", _SECONDS, "Wait for the end of the job for this many seconds, at most 600; answer with the job."
            ),
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("NewJob")}}},
        "responses": {
            "200": {**_answer("With `wait`: it has ended, as `state` says.", _ref("Job")), "headers": location},
            "202": {
                **_answer("It is queued; with `wait`, the whole job.", {"anyOf": [accepted, _ref("Job")]}),
                "headers": location,
            },
            **_errors(
                s400="The body is wrong, or there is no such skill; the text lists the known ones.",
                s413="The body is too large.",
                s422="The params are wrong; `problems` say where.",
            ),
        },
    }


def _list_jobs() -> _Json:
    jobs = {"type": "object", "properties": {"jobs": {"type": "array", "items": _ref("Job")}}, "required": ["jobs"]}
    return {
        "summary": "The latest jobs, newest first.",
        "parameters": [
            _query("state", _TEXT, "Only jobs in this state."),
            _query("skill", _TEXT, "Only jobs of this skill."),
            _query(
                "limit", {"type": "number", "minimum": 0, "exclusiveMaximum": 1e9, "default": 100}, "The most jobs."
            ),
        ],
        "responses": {"200": _answer("The jobs.", jobs), **_errors(s400="The limit is not a number.")},
    }


def _get_job() -> _Json:
    return {
        "summary": "A job with its events.",
        "parameters": [
            _JOB_ID,
            _query("wait", _SECONDS, "First wait for its end, for this many seconds, at most 600."),
        ],
        "responses": {
            "200": _answer("The job.", _ref("Job")),
            **_errors(s400="The time is not a number.", s404="There is no such job."),
        },
    }


def _cancel() -> _Json:
    state = {"type": "object", "properties": {"job_id": _TEXT, "state": _TEXT}, "required": ["job_id", "state"]}
    return {
        "summary": "Cancel a job.",
        "parameters": [_JOB_ID],
        "responses": {
            "202": _answer("It is cancelled, or will be.", state),
            **_errors(s404="There is no such job.", s409="It has ended."),
        },
    }


def _stream(text: str, parameters: list[_Json]) -> _Json:
    stream = {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": _TEXT}}}
    missing = _errors(s404="There is no such job.") if parameters else {}
    return {"summary": text, "parameters": parameters, "responses": {"200": stream, **missing}}


def _list(name: str, text: str) -> _Json:
    found = {"type": "object", "properties": {name: {"type": "array", "items": _OBJECT}}, "required": [name]}
    return {"summary": text, "responses": {"200": _answer(text, found)}}
