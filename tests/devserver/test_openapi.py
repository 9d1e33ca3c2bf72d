"""The client API does what its description says: schemathesis makes all calls that it allows, and more."""

import asyncio
import json
import sys
import urllib.request

from avtomatika_worker import Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.testing import WorkerHarness


async def test_every_call_answers_as_it_is_described(tmp_path):
    worker = Worker()

    @worker.skill
    async def echo(width: int = 1) -> dict[str, int]:
        return {"width": width}

    async with WorkerHarness(worker) as harness:
        orchestrator: EmbeddedOrchestrator = harness.orchestrator
        job = orchestrator.submit("echo", {"width": 2})
        await job.done()
        document = await asyncio.to_thread(_described, orchestrator.url)
        # So that the generated calls do not only meet jobs and skills that are not there.
        document["components"]["schemas"]["NewJob"]["properties"]["skill"]["examples"] = ["echo"]
        document["paths"]["/api/jobs/{job_id}"]["get"]["parameters"][0]["example"] = job.job_id
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", orchestrator.url),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1", "--no-color"),
            *("--exclude-path-regex", "/events$"),  # they do not end
            # A skill that no worker has is an error by what is registered, which no schema can express.
            *("--exclude-checks", "positive_data_acceptance"),
        ]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()[-8000:]
        assert (await harness.run("echo", {"width": 3})).data == {"width": 3}


def _described(url):
    with urllib.request.urlopen(f"{url}/openapi.json") as answer:  # noqa: S310 - our own server
        return json.load(answer)
