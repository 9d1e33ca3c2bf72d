"""Jobs through published orchestrators: what skills return, send and raise, seen from the client."""

from __future__ import annotations

import asyncio

import pytest

from e2e.client import Client, Webhooks
from e2e.fleet import Orchestrator, RunningWorker
from e2e.releases import since

AWKWARD = {"text": "é 漢 \U0001f680", "numbers": [1, 2.5, 1.0, -0.0, 2**53], "nothing": [], "empty": {}, "yes": True}


async def test_a_job_finishes_with_the_data_that_the_skill_returned(client: Client, worker: RunningWorker) -> None:
    job = await client.run(worker.skill("echo"), AWKWARD)
    assert (job.status, job.error) == ("finished", "")
    assert job.data == {"echo": AWKWARD}


async def test_the_largest_result_that_is_sent_is_taken_and_a_larger_one_says_why_it_is_not(
    client: Client, worker: RunningWorker
) -> None:
    largest = await client.run(worker.skill("large"), {"size": 980_000})
    assert (largest.status, len(largest.data["text"])) == ("finished", 980_000)
    larger = await client.run(worker.skill("large"), {"size": 1_000_000})
    assert larger.status == "quarantined"
    assert "MAX_RESULT_BYTES" in larger.error


async def test_nulls_inside_of_lists_reach_an_orchestrator_that_keeps_them(
    client: Client, worker: RunningWorker, orchestrator: Orchestrator
) -> None:
    job = await client.run(worker.skill("echo"), {"row": [1, None, 2]})
    kept = since(orchestrator.version, "1.0b25")  # older ones strip nulls from lists, in what they sign as well
    assert (job.status, job.data) == ("finished", {"echo": {"row": [1, None, 2] if kept else [1, 2]}})


async def test_nulls_and_floats_without_a_fraction_arrive_as_the_documentation_says(
    client: Client, worker: RunningWorker, orchestrator: Orchestrator
) -> None:
    job = await client.run(worker.skill("values"))
    number = repr if since(orchestrator.version, "1.0b22") else (lambda value: repr(float(value)))
    row = [1, None] if since(orchestrator.version, "1.0b25") else [1]
    assert job.status == "finished"
    assert set(job.data) == {"two", "zero", "deep", "row"}
    assert [repr(job.data["two"]), repr(abs(job.data["zero"]))] == [number(2), number(0)]
    assert (list(job.data["deep"][0]), job.data["row"]) == (["two"], row)


async def test_progress_and_events_reach_the_client_and_broken_ones_do_not(
    client: Client, worker: RunningWorker, webhooks: Webhooks
) -> None:
    job_id = await client.submit(worker.skill("count"), {"to": 3}, webhook_url=webhooks.url)
    job = await client.wait(job_id)
    assert job.data == {"counted": 3, "sent": [True] * 3, "broken": False, "undeclared": False}
    assert (job.progress, job.message) == (1.0, "3 of 3")
    await webhooks.until_ended(job_id)
    milestones = sorted(webhooks.events(job_id, "milestone"), key=lambda payload: payload["number"])
    assert milestones == [{"number": n, "label": f"mile {n}"} for n in (1, 2, 3)]
    assert webhooks.events(job_id, "surprise") == []


async def test_a_custom_status_takes_its_own_transition(client: Client, worker: RunningWorker) -> None:
    job = await client.run(worker.skill("review"), {"doubt": 0.75})
    assert (job.state, job.data) == ("reviewed", {"doubt": 0.75})


@pytest.mark.parametrize(("params", "expected"), [({"size": 0}, "size"), ({"size": "big"}, "size"), ({}, "size")])
async def test_invalid_input_fails_the_job_and_names_the_field(
    client: Client, worker: RunningWorker, params: dict[str, object], expected: str
) -> None:
    job = await client.run(worker.skill("strict"), params)
    assert (job.status, job.retries) == ("failed", 0)
    assert "invalid input" in job.error.lower()
    assert expected in job.error


async def test_the_orchestrator_knows_the_inferred_schema(client: Client, worker: RunningWorker) -> None:
    good = await client.run(worker.skill("typed"), {"width": 5})
    bad = await client.run(worker.skill("typed"), {"width": "wide"})
    assert (good.status, good.data) == ("finished", {"width": 5, "title": "untitled"})
    assert bad.status == "quarantined"
    assert "schema_validation_failed" in bad.error
    assert "width" in bad.error


async def test_a_permanent_failure_quarantines_the_job(client: Client, worker: RunningWorker) -> None:
    job = await client.run(worker.skill("permanent"))
    assert (job.status, job.retries) == ("quarantined", 0)
    assert "PERMANENT_ERROR" in job.error
    assert "the picture is gone" in job.error


async def test_a_transient_failure_is_retried_and_succeeds(client: Client, worker: RunningWorker) -> None:
    job = await client.run(worker.skill("flaky"))
    assert (job.status, job.data, job.retries) == ("finished", {"second": True}, 1)


async def test_a_blocking_skill_runs_in_a_thread_and_does_not_hold_up_others(
    client: Client, worker: RunningWorker
) -> None:
    blocking = await client.submit(worker.skill("block"), {"seconds": 1.5})
    await client.wait_until(blocking, lambda job: job.progress == 0.5)
    echo = await client.run(worker.skill("echo"), {"n": 1})
    assert echo.status == "finished"
    assert (await client.job(blocking)).status == "waiting_for_worker"
    job = await client.wait(blocking)
    assert job.status == "finished"
    assert job.data["thread"] != "MainThread"


@pytest.mark.since("1.0b22")  # before, the result of the branch dispatched last was the only one taken
async def test_all_branches_of_a_parallel_job_finish(client: Client, worker: RunningWorker) -> None:
    branches = [{"i": i} for i in range(3)]
    job_id = await client.submit(worker.skill("crowd"), {"branches": branches}, blueprint="parallel")
    job = await client.wait(job_id)
    assert job.status == "finished"
    assert sorted(branch["i"] for branch in job.data["branches"]) == [0, 1, 2]


async def test_two_hundred_jobs_at_twenty_slots_all_finish(client: Client, worker: RunningWorker) -> None:
    async def submit(numbers: range) -> list[str]:
        calls = (client.submit(worker.skill("crowd"), {"i": i, "seconds": 0.2}) for i in numbers)
        return await asyncio.gather(*calls)

    # The second half comes while all slots are taken: orchestrators quarantine what comes while a worker says "busy".
    job_ids = await submit(range(100))
    await client.wait(job_ids[0])
    job_ids += await submit(range(100, 200))
    jobs = await client.wait_all(job_ids, timeout=40.0)
    assert {(job.status, job.error) for job in jobs} == {("finished", "")}
    assert [job.data["i"] for job in jobs] == list(range(200))
    assert 10 <= max(job.data["together"] for job in jobs) <= 20


async def test_the_worker_is_registered_with_all_of_its_skills(client: Client, worker: RunningWorker) -> None:
    record = await client.worker(worker.id)
    assert record is not None
    skills = {skill["name"].removeprefix(worker.prefix): skill for skill in record["supported_skills"]}
    assert set(skills) == {
        *("echo", "crowd", "count", "review", "typed", "strict", "permanent", "flaky", "slow", "block", "narrow"),
        *("shout", "traced", "large", "values"),
    }  # fmt: skip
    assert (record["worker_type"], record["status"]) == ("e2e", "idle")
    assert skills["echo"]["description"] == "Return the params."
    assert skills["echo"]["properties"] == {"price": 0.5, "category": "tests"}
    assert record["capabilities"]["cost_per_skill"][worker.skill("echo")] == 0.5
    assert skills["typed"]["input_schema"]["properties"]["width"]["type"] == "integer"
    assert skills["typed"]["input_schema"]["required"] == ["width"]
    assert skills["review"]["output_statuses"] == ["needs_review"]
    assert set(skills["count"]["events_schema"]) == {"milestone"}


async def test_jobs_beyond_the_limit_of_a_skill_wait_for_their_turn(client: Client, worker: RunningWorker) -> None:
    skill = worker.skill("narrow")
    ids: list[str] = []
    for i in range(8):  # some come while the worker has reported that it runs as many as it can
        ids.append(await client.submit(skill, {"i": i, "seconds": 0.3}))
        await asyncio.sleep(0.1)
    jobs = await client.wait_all(ids, timeout=30)
    assert [(job.status, job.data.get("together"), job.error) for job in jobs] == [("finished", 1, "")] * 8
