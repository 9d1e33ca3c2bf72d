"""The jobs of a soak: number and seed decide what a job asks for and what its outcome has to be."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any, Final

WORKER_ID: Final = "soak"
WORKER_TYPE: Final = "soak"
TOKEN: Final = "soak-token"
EVENT: Final = "step"
HISTORY: Final = "history.sqlite3"
JOURNAL: Final = "journal.jsonl"

_SHARES: Final = {
    "echo": 40,
    "stream": 15,
    "slow": 8,
    "thread": 15,
    "process": 12,
    "program": 2,
    "large": 5,
    "refuse": 3,
}
_EVENTS: Final = {"stream": 5, "slow": 2, "thread": 2, "process": 2, "program": 1}
_LARGE: Final = 100_000


@dataclass(frozen=True, slots=True)
class Job:
    """One job; ``events`` is the number of custom events that its task sends."""

    number: int
    skill: str
    params: dict[str, Any]
    events: int

    @property
    def job_id(self) -> str:
        """The id under which the orchestrator knows it."""
        return f"job-{self.number}"


def job_of(seed: int, number: int) -> Job:
    """Return the job of that number."""
    chance = random.Random(f"{seed}/job/{number}")
    skill = chance.choices(list(_SHARES), list(_SHARES.values()))[0]
    events = _EVENTS.get(skill, 0)
    params: dict[str, Any] = {"number": number, "salt": f"{chance.getrandbits(64):016x}"}
    if events:
        params["events"] = events
    return Job(number, skill, params, events)


def answer(skill: str, number: int, salt: str) -> dict[str, Any]:
    """Return what a skill returns, which no other job has."""
    digest = hashlib.sha256(f"{skill}/{number}/{salt}".encode()).hexdigest()
    data: dict[str, Any] = {"number": number, "digest": digest}
    if skill == "large":
        data["text"] = (digest * (_LARGE // len(digest) + 1))[:_LARGE]
    return data


def fingerprint(data: object) -> str:
    """Return a short digest of JSON data, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:32]


def refusal(number: int) -> str:
    """Return the message with which ``refuse`` fails."""
    return f"job {number} is refused"
