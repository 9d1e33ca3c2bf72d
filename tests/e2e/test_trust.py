"""Tasks that published orchestrators sign, and what becomes of those that they do not sign with our key."""

from __future__ import annotations

import pytest

from e2e.client import client_of
from e2e.fleet import Fleet, Orchestrator
from e2e.releases import since

KEY = "the key of this orchestrator"


@pytest.mark.parametrize(("ours", "taken"), [(KEY, True), ("another key", False)])
async def test_a_task_runs_only_with_the_signature_of_the_orchestrators_key(
    fleet: Fleet, orchestrator: Orchestrator, ours: str, taken: bool
) -> None:
    signing = fleet.start_orchestrator(orchestrator.version, ORCHESTRATOR_SECRET_KEY=KEY)
    worker = fleet.start_worker(signing, "trusting", ORCHESTRATOR_SECRET_KEY=ours)
    async with client_of(signing.url) as client:
        params = {"text": "ü 漢 \U0001f680", "numbers": [1, 2.5, 1.0, -0.0, 2**53], "nulls": [None], "none": None}
        job = await client.run(worker.skill("echo"), params)
    if taken and since(signing.version, "1.0b30"):
        assert (job.status, job.error) == ("finished", "")
    else:
        assert job.status == "quarantined"
        assert "signed" in job.error or "signature" in job.error
    worker.process.kill()
    signing.process.kill()
