"""Tasks for five models on two workers that have room for two each: they go to the worker that has theirs loaded."""

from __future__ import annotations

import asyncio
import json
import random

from e2e.client import Client
from e2e.fleet import Fleet, Orchestrator
from e2e.models_app import NAMES

TASKS, AT_ONCE = 200, 2


async def test_nearly_all_tasks_for_a_model_that_was_loaded_before_find_it_loaded(
    fleet: Fleet, orchestrator: Orchestrator, client: Client
) -> None:
    """An orchestrator sends a task to the cheapest of the workers that announce its skill as hot, or else of all.

    So the models that most tasks ask for are kept by the worker that costs more: what is loaded nowhere goes to the
    other one, and makes none of those go.
    """
    first = _start(fleet, orchestrator, "models", cost=1)
    second = _start(fleet, orchestrator, "popular", cost=2, skills_of=first, WARM_UP="ada bob")
    zipf = random.Random(5).choices(NAMES, [1 / rank**1.5 for rank in range(1, 6)], k=TASKS)
    tasks, done = iter(zipf), []

    async def lane() -> None:
        done.extend([(await client.run(first.skill(f"caption--{name}"))).data for name in tasks])

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    seen, repeats = set[str](), []
    for each in done:
        assert each["got"] == each["asked"]
        assert each["loaded"], "it was unloaded while a task used it"
        if each["asked"] in seen:
            repeats.append(each["warm"])
        seen.add(each["asked"])
    assert len(done) == TASKS
    assert {each["worker"] for each in done} == {first.id, second.id}
    assert sum(repeats) / len(repeats) >= 0.9
    for worker in (first, second):
        worker.process.kill()


def _start(fleet: Fleet, orchestrator: Orchestrator, name: str, *, cost: int, skills_of=None, **env: str):
    prefix = skills_of.prefix if skills_of else f"{name}-"
    costs = json.dumps({f"{prefix}caption--{each}": cost for each in NAMES})
    return fleet.start_worker(
        orchestrator, name, skills_of=skills_of, app="models_app", COST_PER_SKILL=costs, MAX_CONCURRENT_TASKS="4", **env
    )
