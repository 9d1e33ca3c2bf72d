"""Holds a worker to its published contract."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.coerce import as_object, as_texts
from avtomatika_worker.skills.contract import SkillContract
from avtomatika_worker.testing.compatibility import input_breaks, output_breaks
from avtomatika_worker.worker import Worker

UPDATE_VARIABLE: Final = "AVTOMATIKA_UPDATE_CONTRACT"
"""If set to 1, `assert_contract` writes the file instead of checking it."""

_HOW: Final = f"run the test once with {UPDATE_VARIABLE}=1"


def assert_contract(worker: Worker, path: str | os.PathLike[str], *, update: bool = False) -> None:
    """Assert that the worker keeps the contract in the JSON file ``path``, which belongs in version control.

    Fails if a skill is gone or has another type; if params that it accepted are now refused or ignored; if a field of
    its data or events is gone, may be missing or has another type; or if it may end with a status that was not
    announced. New skills, optional params, and additional fields and events are compatible.

    With ``update``, or ``AVTOMATIKA_UPDATE_CONTRACT=1`` in the environment, the file is written and nothing is
    checked. A missing file is a failure, not a new contract. Raises AssertionError that names every break.
    """
    file = Path(path)
    worker.load_skills(worker.load_settings({}))
    now = {contract.name: _published(contract) for contract in worker.skills.contracts()}
    if update or os.environ.get(UPDATE_VARIABLE, "").lower() in {"1", "true", "yes", "on"}:
        text = json.dumps({"skills": dict(sorted(now.items()))}, indent=2, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")
        return
    breaks = [text for name, skill in _read(file).items() for text in _breaks(name, skill, now.get(name))]
    if breaks:
        lines = "\n".join(f"  {each}" for each in breaks)
        raise AssertionError(f"the worker breaks its contract {file}:\n{lines}\nIf that is intended, {_HOW}.")


def _published(contract: SkillContract) -> dict[str, Any]:
    """Return the part that others rely on; descriptions and prices may change."""
    return {
        "type": contract.type,
        "input_schema": contract.input_schema,
        "output_schema": contract.output_schema,
        "events_schema": dict(contract.events_schema or {}),
        "output_statuses": sorted(contract.output_statuses),
    }


def _read(file: Path) -> Mapping[str, Any]:
    try:
        skills = as_object(json.loads(file.read_text(encoding="utf-8"))).get("skills")
    except FileNotFoundError:
        raise AssertionError(f"there is no contract {file}: to write it, {_HOW}, and commit it") from None
    except ValueError as error:
        raise AssertionError(f"{file} is not a contract: {error}") from None
    if not is_dict(skills):
        raise AssertionError(f"{file} is not a contract: it has no object called skills")
    return skills


def _breaks(name: str, old: Mapping[str, Any], new: Mapping[str, Any] | None) -> Iterator[str]:
    if new is None:
        yield f"{name}: the skill is gone"
        return
    if old.get("type") != new["type"]:
        yield f"{name}: its type was {old.get('type')} and is {new['type']} now"
    found = input_breaks(old.get("input_schema"), new["input_schema"])
    found += output_breaks(old.get("output_schema"), new["output_schema"])
    events = as_object(old.get("events_schema"))
    for event, schema in events.items():
        if event in new["events_schema"]:
            found += output_breaks(schema, new["events_schema"][event], f"event {event}")
        else:
            found.append(f"event {event} is no longer declared")
    for status in new["output_statuses"]:
        if status not in as_texts(old.get("output_statuses")):
            found.append(f"status {status} was not announced before")
    yield from (f"{name}: {text}" for text in found)
