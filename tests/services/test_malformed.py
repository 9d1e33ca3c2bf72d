"""Whatever an orchestrator answers a poll with, the worker polls on and serves the next valid task."""

import json
import random

from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from services.conftest import running

ROUNDS = 200
A_ROUND = 10
VALUES = [None, True, 5, -1, 2**70, 1e308, "text", "", [], [1], {}, {"a": []}, "\u0000", "../../etc/passwd"]
FIELDS = [
    "job_id",
    "task_id",
    "type",
    "params",
    "priority",
    "deadline",
    "metadata",
    "security",
    "policy",
    "tracing_context",
]


def malformed(rng: random.Random) -> bytes:
    """Make one answer: wrong types, missing fields, truncated JSON, HTML, huge numbers, deep nesting, noise."""
    task = {"job_id": f"ghost-{rng.random()}", "task_id": f"ghost-{rng.random()}", "type": "echo", "params": {}}
    match rng.randrange(8):
        case 0:
            task.pop(rng.choice(list(task)))
        case 1 | 2:
            task[rng.choice(FIELDS)] = rng.choice(VALUES)
        case 3:
            return json.dumps(task).encode()[: rng.randrange(1, 60)]
        case 4:
            return b"<html><body><h1>502 Bad Gateway</h1></body></html>"
        case 5:
            return b'{"job_id":"g","task_id":"g","type":"echo","params":{"x":1' + b"0" * rng.randrange(400) + b"}}"
        case 6:
            return b'{"job_id":"g","task_id":"g","type":"echo","params":' + b'{"a":' * rng.randrange(2_000) + b"1"
        case _:
            return rng.randbytes(rng.randrange(1, 80))
    return json.dumps(task).encode()


async def test_two_thousand_malformed_answers_end_at_most_themselves(worker):
    @worker.skill
    async def echo(params: dict):
        return params

    rng = random.Random(20261123)
    backoff = {"result_retry_initial_delay": 0.0001, "result_retry_max_delay": 0.001}
    async with EmbeddedOrchestrator(poll_time=0.05) as orchestrator, running(worker, orchestrator, **backoff):
        for number in range(ROUNDS):
            faults = [Fault(call="poll", kind="body", body=malformed(rng)) for _ in range(A_ROUND)]
            orchestrator.inject(*faults)
            await orchestrator.wait_for(lambda faults=faults: all(fault.used for fault in faults), timeout=30)
            job = await orchestrator.submit("echo", {"number": number}).done()
            assert (job.state, job.result) == (JobState.FINISHED, {"number": number})


async def test_malformed_replies_to_other_calls_lose_nothing(worker):
    @worker.skill
    async def echo(params: dict):
        return params

    rng = random.Random(7)
    backoff = {"result_retry_initial_delay": 0.0001, "result_retry_max_delay": 0.001, "heartbeat_interval": 0.05}
    async with EmbeddedOrchestrator(poll_time=0.05) as orchestrator, running(worker, orchestrator, **backoff):
        for number in range(100):
            calls = ["result", "heartbeat", "event"]
            orchestrator.inject(*(Fault(call=rng.choice(calls), kind="body", body=malformed(rng)) for _ in range(3)))
            job = await orchestrator.submit("echo", {"number": number}).done()
            assert job.result == {"number": number}
            orchestrator.clear_faults()
