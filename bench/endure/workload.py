"""The jobs of an endurance run: seed and number decide what a job asks for, and what has to come of it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from bench.soak.jobs import answer, refusal
from cluster.releases import since

SOURCE: Final = "in/quiet.txt"

_SHARES: Final = {
    "echo": 20, "stream": 9, "thread": 9, "process": 9, "program": 2, "large": 4, "refuse": 4, "slow": 8, "tokens": 4,
    "capitals": 6, "branches": 8, "long": 9, "cancelled": 8,
}  # fmt: skip
_EVENTS: Final = {"stream": 3, "slow": 2, "thread": 2, "process": 2, "program": 1}
_CANCELLED_EVENTS: Final = 8  # 12 s, unless it is cancelled


@dataclass(frozen=True, slots=True)
class Task:
    """What one job asks for. ``cancel_after`` is in seconds; ``tasks`` is how many the orchestrator makes of it."""

    number: int
    kind: str
    skill: str
    params: dict[str, Any]
    cancel_after: float | None = None

    @property
    def blueprint(self) -> str:
        """The orchestrator's blueprint that runs it."""
        return "parallel" if self.kind == "branches" else "task"

    @property
    def ends_well(self) -> bool:
        """Whether it finishes where nothing goes wrong."""
        return self.kind != "refuse" and self.cancel_after is None


def task_of(seed: int, number: int, release: str, timeout: float, bucket: str) -> Task:
    """Return the job of that number, for a release whose tasks time out after ``timeout`` seconds."""
    chance = random.Random(f"{seed}/endure/{number}")
    shares = dict(_SHARES)
    if not since(release, "1.0b22"):
        del shares["branches"]  # such a job cannot finish there, whatever a worker does
    kind = chance.choices(list(shares), list(shares.values()))[0]
    params = _params(number, chance)
    match kind:
        case "branches":
            branches = [_params(number, chance) for _ in range(chance.choice([2, 3]))]
            return Task(number, kind, chance.choice(["echo", "large"]), {"branches": branches})
        case "long":
            return Task(number, kind, "long", {**params, "seconds": round(timeout * chance.uniform(1.1, 2.0), 2)})
        case "tokens":
            return Task(number, kind, "tokens", {**params, "count": chance.choice([1, 20, 60])})
        case "capitals":
            return Task(number, kind, "capitals", {**params, "source": f"s3://{bucket}/{SOURCE}"})
        case "cancelled":
            params = {**params, "events": _CANCELLED_EVENTS}
            return Task(number, kind, "slow", params, cancel_after=round(chance.uniform(0.2, 6.0), 2))
    events = _EVENTS.get(kind, 0)
    return Task(number, kind, kind, {**params, "events": events} if events else params)


def _params(number: int, chance: random.Random) -> dict[str, Any]:
    return {"number": number, "salt": f"{chance.getrandbits(64):016x}"}


def is_right(skill: str, params: dict[str, Any], result: dict[str, Any]) -> bool:
    """Return whether a result is that of a skill with these params."""
    number, salt = params["number"], params["salt"]
    error, data = result.get("error") or {}, result.get("data") or {}
    if skill == "refuse":
        return error.get("code") == "PERMANENT_ERROR" and refusal(number) in error.get("message", "")
    if result["status"] != "success":
        return False
    if skill == "tokens":
        return bool(data.get("result") == "".join(f"{number}/{salt}/{part} " for part in range(params["count"])))
    if skill == "capitals":
        return str(data.get("file", "")).startswith("s3://") and answer(skill, number, salt).items() <= data.items()
    return bool(data == answer(skill, number, salt))


def events_of(params: dict[str, Any], skill: str) -> list[int]:
    """Return the steps that a task's own events carry, in order."""
    return [0] if skill == "long" else list(range(params.get("events", 0)))
