"""What is true of every run, whatever goes wrong in it; and what is true besides where nothing does."""

from collections import defaultdict

from avtomatika_worker.delivery.sqlite_store import Kind
from avtomatika_worker.devserver import JobState
from simulation.faults import (
    Answers,
    Blocked,
    ClockJump,
    Crash,
    CrashAfterASkill,
    Partition,
    Redeployed,
    Restart,
    SlowBytes,
)
from simulation.machine import START
from simulation.scenario import SPAN

BREAKS = ("an idle worker dropped a poll in flight", "the poll was dropped while being answered")
"""What an orchestrator complains of when a connection breaks: where something went wrong, that is why."""

SOON = 2.0
"""Seconds that what is not waited for may take, latencies and the coalescing of changes included."""


WITH_REFRESH_TOKENS = 13
"""The first of the protocol versions 1.0b… that renew tokens; before, a registration has to bring others."""

LONGEST_PAUSE = 70.0
"""Seconds between two tries to register, at most."""


def check(simulation, settled):
    """Note what is not as it must be."""
    for violation in _all(simulation, settled):
        simulation.history.violated(violation)


def _all(simulation, settled):
    if not settled:
        yield from _unsettled(simulation)
    for job, record in simulation.records.items():
        yield from _of_job(simulation, job, record)
    yield from _of_twins(simulation.history)
    for number, each in enumerate(simulation.orchestrators):
        yield from _of_orchestrator(simulation, number, each)
    for loop in simulation.network.loops:
        for context in loop.errors:
            error = context.get("exception")
            yield f"unhandled in {loop.name}: {context.get('message')} {error!r}"
    if not simulation.machine.ended:
        yield "the worker did not stop when asked to"
    else:
        yield from _of_the_end(simulation, settled)
    if not simulation.scenario.faults:
        yield from _where_nothing_goes_wrong(simulation)


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


# ------------------------------------------------------------------------------------------- jobs


def _of_job(simulation, job, record):
    """A result that was accepted is the skill's own, and the only one; events came in their order."""
    if record.state is JobState.FINISHED and (record.result or {}).get("n") != job.params["n"]:
        yield f"{record.job_id} has another result than its own: {record.result}"
    done = [each for each in record.results_received if each.status == "accepted"]
    done = [each for each in done if each.message.get("status") == "success"]
    if len(done) > 1:
        yield f"{record.job_id} has {len(done)} accepted results"
    if record.state is not JobState.FINISHED and _must_finish(simulation.scenario, job):
        yield f"{record.job_id} ({job.skill}) has ended as {record.state}: {record.error}"
    yield from _of_events(record)


def _must_finish(scenario, job):
    """Whether only a bug in the worker can keep a job from its success."""
    if job.cancelled_after is not None or job.deadline is not None or job.params.get("failures", 0) > 2:
        return False
    if scenario.settings.get("lease_lost_after") is not None:
        return False
    if scenario.options.get("reassign_running") and job.work > scenario.options["task_timeout"] / 2:
        return False  # it may have been handed out too often
    if scenario.options.get("reassign_running") and any(_is_silenced(each) for each in scenario.faults):
        return False
    return not any(_may_end_a_job(each) for each in scenario.faults)


def _is_silenced(fault):
    """Whether a fault keeps results back for a minute, which is longer than such an orchestrator waits."""
    limited = isinstance(fault, Answers) and fault.kind in {"status", "html"} and fault.status == 429
    return limited and fault.call != "poll"


def _may_end_a_job(fault):
    """Whether a fault may be what a job fails of: a worker that stops hands its tasks back, which counts."""
    refused = isinstance(fault, Answers) and fault.kind == "status" and fault.status in {401, 404}
    return refused or isinstance(fault, Redeployed)


def _of_events(record):
    """Each run of a skill counts its events."""
    seen, last = set(), defaultdict(lambda: -1)
    for event in record.events:
        if event["event_type"] != "step" or event["event_id"] in seen:
            continue
        seen.add(event["event_id"])
        run, number = event["payload"]["run"], event["payload"]["number"]
        if number != last[run] + 1:
            yield f"events of {record.job_id}: {number} follows {last[run]} (run {run})"
        last[run] = max(last[run], number)


def _of_twins(history):
    """No work runs twice at once, unless its first run was given up: it does not stop. The log says so soon after."""
    for first, second in history.twins:
        if not any(first.task_id in text and at <= second.began + 0.1 for at, text in history.lingering):
            yield (
                f"job {second.job_id} runs twice at once in life {second.life}: {first.task_id} and {second.task_id}"
            )


# ------------------------------------------------------------------------------------------- orchestrators


def _of_orchestrator(simulation, number, orchestrator):
    for problem in orchestrator.embedded.problems:
        if not _is_excused(simulation.scenario, problem):
            yield f"{orchestrator.name} complains: {problem}"
    late = [
        each for each in simulation.scenario.faults if isinstance(each, Partition | SlowBytes | ClockJump | Answers)
    ]
    if not any(each.orchestrator == number for each in late):  # these let calls arrive late, or the clock be set
        yield from _of_calls(simulation, orchestrator)
    yield from _of_restarts(simulation, number, orchestrator)
    yield from _of_heartbeats(simulation, orchestrator)


def _of_restarts(simulation, number, orchestrator):
    """An orchestrator that may have lost the worker has it again soon, where nothing else is in the way."""
    faults = simulation.scenario.faults
    restarts = [each for each in faults if isinstance(each, Restart) and each.orchestrator == number]
    others = [each for each in faults if isinstance(each, Crash | CrashAfterASkill | Redeployed | Blocked)]
    if len(restarts) != 1 or others or any(_touches(each, number) for each in faults if each not in restarts):
        return
    back = restarts[0].at + restarts[0].seconds
    came = [call.time - START for call in orchestrator.embedded.requests if call.call == "register"]
    soon = simulation.scenario.settings["heartbeat_interval"] + LONGEST_PAUSE
    if simulation.schedule.now > back + soon and not any(back <= each <= back + soon for each in came):
        yield f"{orchestrator.name} was back after {back:.1f} s, and the worker did not register: {came}"


def _touches(fault, number):
    return getattr(fault, "orchestrator", None) == number


def _is_excused(scenario, problem):
    if "timestamp is" in problem.text:
        # A worker knows an orchestrator's clock from its answers: its own may be wrong when it starts. And what a
        # partition has held for minutes arrives all the same, written by a worker that may be gone since.
        if any(isinstance(each, Partition) for each in scenario.faults):
            return True
        # One that is stopped before it has registered says "offline" all the same: an earlier life of it may have.
        early = (
            {"register", "heartbeat"} if any(isinstance(each, Redeployed) for each in scenario.faults) else {"register"}
        )
        jumps = [each for each in scenario.faults if isinstance(each, ClockJump)]
        return any(each.orchestrator is not None or problem.call in early for each in jumps)
    return bool(scenario.faults) and any(known in problem.text for known in BREAKS)


def _of_calls(simulation, orchestrator):
    """Nothing follows "offline" in the same life of the worker."""
    offline = {}
    for call in sorted(orchestrator.embedded.requests, key=lambda each: each.time):
        at = call.time - START
        life = sum(began <= at for began in simulation.history.lives)
        if call.call == "heartbeat" and call.status == 200 and call.json.get("status") == "offline":
            offline.setdefault(life, at)
        elif life in offline and at > offline[life] + 0.01 and call.call in {"poll", "register", "heartbeat"}:
            yield f"{orchestrator.name} has a {call.call} after the worker was offline (life {life})"


# ------------------------------------------------------------------------------------------- the end


def _of_the_end(simulation, settled):
    """What a skill has finished is answered by an orchestrator, or given up loudly; but for what a crash took.

    What was on disk no crash may take, and what was delivered is not kept.
    """
    disk, history, machine = simulation.machine.disk, simulation.history, simulation.machine
    known = {message.task_id for message in disk.rows.values()}
    for record in simulation.records.values():
        known |= {each.message["task_id"] for each in record.results_received}
        others = {task_id for task_id, job_id in history.adopted.items() if job_id == record.job_id}
        if record.results_received and others:  # it goes under the newest id
            known |= {record.job_id, *others, *(run.task_id for run in history.runs if run.job_id == record.job_id)}
    given_up = " ".join(history.given_up)
    for run in history.runs:
        is_known = run.task_id in known or run.task_id in given_up
        if run.how == "ended" and run.life == machine.life and not is_known:
            yield f"the result of {run.task_id} ({run.job_id}) is nowhere"
    jobs = {run.task_id: run.job_id for run in history.runs}
    for message in disk.ever:
        is_known = not known.isdisjoint({message.task_id, jobs.get(message.task_id)}) or message.task_id in given_up
        if message.kind is Kind.RESULT and not is_known:
            yield f"the result of {message.task_id} was on disk, and never delivered"
    # Events may be left to the next life, a task's last ones also where its result had to go out before them.
    kept = {message.task_id for message in disk.rows.values() if message.kind is Kind.RESULT} - _stale(simulation)
    if settled and kept and not machine.killed:
        yield f"results of {sorted(kept)} stay on disk although all was delivered"
    if machine.killed:
        return
    left = [task.get_name() for task in machine.main.tasks + machine.link.tasks if not task.done()]
    if not all(each.startswith("skill stubborn") for each in left):
        yield f"tasks are left behind: {left}"


def _stale(simulation):
    """Return the ids of results that may still be wanted: they were stale, and their work was not done again."""
    found = set()
    for record in simulation.records.values():
        came = record.results_received
        # The last answer may have been lost with the worker that was killed then.
        if not any(each.status == "accepted" for each in came) or came[-1].reason == "stale_task":
            found |= {each.message["task_id"] for each in record.results_received if each.reason == "stale_task"}
    return found


# ------------------------------------------------------------------------------------------- without faults


def _where_nothing_goes_wrong(simulation):
    scenario, history = simulation.scenario, simulation.history
    interval = scenario.settings["heartbeat_interval"]
    soon = SOON if scenario.settings["enable_websockets"] else interval + 3.0 + SOON
    stubborn = {record.job_id for job, record in simulation.records.items() if job.skill == "stubborn"}
    for run in history.runs:
        cancelled = history.cancelled.get(run.job_id)
        if cancelled is None or not run.began <= cancelled or run.job_id in stubborn:
            continue
        if (run.ended or history.clock()) - cancelled > soon:
            yield f"{run.task_id} goes on for {run.ended - cancelled:.1f} s after it was cancelled"
    work = scenario.work * (4 if scenario.options.get("reassign_running") else 1)
    if "rate_limits" not in scenario.options and history.clock() > 180.0 + work + 3 * len(scenario.jobs):
        yield f"it took {history.clock():.0f} s although nothing went wrong"
    for version, orchestrator in zip(scenario.versions, simulation.orchestrators, strict=True):
        yield from _of_order(simulation, orchestrator)
        if int(version.removeprefix("1.0b")) >= WITH_REFRESH_TOKENS:
            yield from _of_tokens(orchestrator)


def _of_tokens(orchestrator):
    """Access tokens are renewed before they expire."""
    for call in orchestrator.embedded.requests:
        if call.status in {401, 403}:
            yield f"{orchestrator.name} refuses a {call.call} with {call.status} although nothing went wrong"


def _of_heartbeats(simulation, orchestrator):
    """Heartbeats are not further apart than promised: where nothing goes wrong, and in the end of every run."""
    interval, calm = simulation.scenario.settings["heartbeat_interval"], START
    if simulation.scenario.faults:
        calm += max(SPAN + LONGEST_PAUSE, *simulation.history.lives)
    last = None
    for call in sorted(orchestrator.embedded.requests, key=lambda each: each.time):
        if call.call in {"heartbeat", "register"} and call.status in {200, 429}:
            if last is not None and call.time - max(last, calm) > interval + 3.1 + SOON:
                yield f"{orchestrator.name} heard nothing for {call.time - last:.1f} s"
            last = call.time


def _of_order(simulation, orchestrator):
    """A task's events come before its result."""
    ended = {}
    for call in orchestrator.embedded.requests:
        if call.call == "result" and call.status == 200:
            ended[call.json["task_id"]] = call.time
        elif call.call == "event" and call.status == 200 and call.json["event_type"] == "step":
            task_id = call.json.get("origin_task_id") or call.json["target_task_id"]
            if task_id in ended and "rate_limits" not in simulation.scenario.options:
                yield f"an event of {task_id} comes after its result"
