"""What is true of every run, whatever goes wrong in it."""

from collections import defaultdict

from avtomatika_worker.delivery.sqlite_store import Kind
from avtomatika_worker.devserver import JobState

KNOWN_PROBLEMS = (
    "an idle worker dropped a poll in flight",
    "the poll was dropped while being answered",
    "timestamp is",
)
"""What an orchestrator complains of when a connection breaks or a clock is set: that is not the worker's fault."""


def check(simulation, settled):
    """Note what is not as it must be."""
    for violation in _all(simulation, settled):
        simulation.history.violated(violation)


def _all(simulation, settled):
    if not settled:
        yield from _unsettled(simulation)
    if not simulation.machine.ended:
        yield "the worker did not stop when asked to"
    for job, record in simulation.records.items():
        yield from _of_job(job, record)
    yield from _unreported(simulation)
    if settled and simulation.machine.ended and simulation.machine.disk.rows:
        yield f"{len(simulation.machine.disk.rows)} messages stay on disk although all was delivered"
    for each in simulation.orchestrators:
        yield from _of_orchestrator(each)
    for loop in simulation.network.loops:
        for context in loop.errors:
            error = context.get("exception")
            yield f"unhandled in {loop.name}: {context.get('message')} {error!r}"


def _unsettled(simulation):
    for job, record in simulation.records.items():
        if not record.state.final:
            yield f"{record.job_id} ({job.skill}) never ended: {record.state}, attempt {record.attempts}"
    machine = simulation.machine
    if machine.engine is not None:
        if machine.engine.outbox.depth:
            yield f"{machine.engine.outbox.depth} results or events were never delivered"
        if len(machine.engine.tasks.running):
            yield f"tasks still run: {sorted(machine.engine.tasks.running.job_ids())}"


def _of_job(job, record):
    """A result that was accepted is the skill's own; events came in their order, and before it."""
    if record.state is JobState.FINISHED and (record.result or {}).get("n") != job.params["n"]:
        yield f"{record.job_id} has another result than its own: {record.result}"
    accepted = [each for each in record.results_received if each.status == "accepted"]
    done = [each for each in accepted if each.message.get("status") == "success"]
    if len(done) > 1:
        yield f"{record.job_id} has {len(done)} accepted results"
    yield from _of_events(record)


def _of_events(record):
    seen, last = set(), defaultdict(lambda: -1)
    for event in record.events:
        if event["event_type"] != "step" or event["event_id"] in seen:
            continue
        seen.add(event["event_id"])
        payload = event["payload"]
        key = payload["life"], event["origin_task_id"] if "origin_task_id" in event else event["target_task_id"]
        number = payload["number"]
        if number != last[key] + 1:
            yield f"events of {record.job_id}: {number} follows {last[key]} (life and task {key})"
        last[key] = max(last[key], number)


def _unreported(simulation):
    """What a skill has finished is answered by an orchestrator, or given up loudly; but for what a crash took.

    What was on disk no crash may take.
    """
    if not simulation.machine.ended:
        return
    settled = {message.task_id for message in simulation.machine.disk.rows.values()}
    for record in simulation.records.values():
        settled |= {each.message["task_id"] for each in record.results_received}
    given_up = " ".join(simulation.history.given_up)
    for run in simulation.history.runs:
        is_known = run.task_id in settled or run.task_id in given_up
        if run.how == "ended" and run.life == simulation.machine.life and not is_known:
            yield f"the result of {run.task_id} ({run.job_id}) is nowhere"
    for message in simulation.machine.disk.ever:
        if message.kind is Kind.RESULT and message.task_id not in settled and message.task_id not in given_up:
            yield f"the result of {message.task_id} was on disk, and never delivered"


def _of_orchestrator(orchestrator):
    for problem in orchestrator.embedded.problems:
        if not any(known in problem.text for known in KNOWN_PROBLEMS):
            yield f"{orchestrator.name} complains: {problem}"
