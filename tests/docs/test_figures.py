"""Figures of the pages are those of the code's constants, and of the measurements in bench/results."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from avtomatika_worker.checkpoints import manifest, saved_state
from avtomatika_worker.delivery import handover, outbox, sqlite_store, works
from avtomatika_worker.files import names, progress, store_settings
from avtomatika_worker.fleet import fleet
from avtomatika_worker.link import cancellations, clock, commands, silence
from avtomatika_worker.monitoring import heartbeat_process, probe_server, stand_in, watchdog
from avtomatika_worker.observability import writer
from avtomatika_worker.policy import backoff, batcher, heartbeat, model_pool, restarts, slot_tuner
from avtomatika_worker.protocol import width
from avtomatika_worker.skills import run_options
from avtomatika_worker.tasks import dedup, outgoing, poll_source
from avtomatika_worker.testing import PRODUCTION_LIKE
from avtomatika_worker.worker import make_links, program
from docs.blocks import ROOT

RESULTS = ROOT / "bench" / "results"
MIB = 2**20
WORDS = {8: "eight", 2: "two", 5: "five", 10: "ten"}


def page(name: str) -> str:
    """Return a page's text on one line."""
    path = ROOT / name if (ROOT / name).exists() else ROOT / "docs" / name
    return " ".join(path.read_text("utf-8").split())


def figures(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


CONSTANTS = [
    ("operations.md", f"A client has {probe_server.REQUEST_TIMEOUT:.0f} s for its whole request"),
    ("operations.md", f"above {probe_server.MOST_CONNECTIONS} connections"),
    ("operations.md", f"although one has been due for {watchdog.STALLED_AFTER:.0f} s"),
    ("operations.md", f"A loop that is blocked for {watchdog.BLOCKED_AFTER:.0f} s is logged"),
    ("operations.md", f"After {stand_in.SILENT_AFTER} s of silence, the process sends"),
    ("operations.md", f"answer for {heartbeat_process.HUNG_AFTER * stand_in.PULSE:.0f} s, the log says so"),
    ("operations.md", f"after {program.FORCED_LIMIT:.0f} s the process ends in any case"),
    ("operations.md", f"up to {sqlite_store.WRITE_TIMEOUT:.0f} s more go into writing undelivered results"),
    ("operations.md", f"waits for {poll_source.OVERDUE:.0f} s longer than `TASK_POLL_TIMEOUT`"),
    ("operations.md", f"two polls for each slot and {poll_source.STALE} more"),
    ("operations.md", f"at most {heartbeat.BURST:.0f} in a burst"),
    ("operations.md", f"A `Retry-After` of more than {backoff.LONGEST_WAIT / 60:.0f} minutes"),
    ("operations.md", f"after {silence.SILENT_AFTER:.0f} s without an answer to anything"),
    ("operations.md", f"get a heartbeat every {make_links.FAILOVER_HEARTBEAT:.0f} s, so that silence shows"),
    (
        "operations.md",
        f"memory over {slot_tuner.MEMORY_TARGET:.0f} %, CPU over {slot_tuner.CPU_TARGET:.0f} % or a GPU's",
    ),
    ("operations.md", f"memory over {slot_tuner.DEVICE_TARGET:.0f} % | every {slot_tuner.SHRINK_EVERY:.0f} s fewer"),
    ("operations.md", f"once it has run for {restarts.STABLE_AFTER:.0f} s, the delays start over"),
    ("operations.md", f"it is cut short, and killed {fleet.FORCED_LIMIT:.0f} s later"),
    ("delivery.md", f"At most {outbox.RETRIES_IN_FLIGHT} retries to one orchestrator"),
    ("delivery.md", f"With {outbox.BACKLOG_LIMIT:,} results and events waiting"),
    ("delivery.md", f"or {outbox.BACKLOG_BYTES // MIB} MiB of them"),
    ("delivery.md", f"When {handover.LATE} are waiting for an answer"),
    ("delivery.md", f"It is waited for once, for {sqlite_store.WRITE_TIMEOUT:.0f} s"),
    (
        "delivery.md",
        f"out of the last {dedup.REMEMBERED} (results over {dedup.LARGEST // 1024} KiB are not remembered)",
    ),
    (
        "explanation/adoption.md",
        f"The last {works.MOST_KEPT} such results are kept, up to {works.MOST_BYTES // MIB} MiB",
    ),
    ("files.md", f"in parts of {store_settings.PART_SIZE // MIB} MiB, {WORDS[store_settings.CONCURRENCY]} at a time"),
    ("files.md", f"is sent up to {WORDS[store_settings.ATTEMPTS]} times"),
    ("files.md", f"Every {progress.NOTICE_AFTER:.0f} s a transfer reports"),
    ("files.md", f"may have at most {names._LONGEST} bytes"),  # noqa: SLF001
    ("howto/checkpoints.md", f"or over {saved_state.MOST_STATE // MIB} MiB"),
    ("howto/checkpoints.md", f"(10 GiB), {manifest.MOST_FILES:,} files"),
    ("guide/cancellation.md", f"within `cancel_grace` seconds ({run_options.CANCEL_GRACE:.0f}"),
    ("guide/models.md", f"{WORDS[model_pool.MOST_PASSES]} tasks that come later"),
    ("guide/batching.md", f"whose deadline is {WORDS[batcher.PATIENCE]} seconds after its arrival"),
    ("guide/streaming.md", f"once a mebibyte of them does{'' if outgoing.WAITING_BYTES == MIB else '?'}"),
    ("observability.md", f"up to {writer.MOST_WAITING // MIB} MiB wait"),
    ("security.md", f"(commas and opening brackets) | {width.MOST_VALUES:,} |"),
    ("security.md", f"{commands.COMMANDS_PER_SECOND:,} a second; {cancellations.MOST_WAITING:,} cancellations at once"),
    ("security.md", f"A difference of more than {clock.LIMIT:.0f} s is logged once"),
    ("explanation/threads.md", f"After {watchdog.BLOCKED_AFTER:.0f} s it logs the stack"),
    ("testing.md", f"{PRODUCTION_LIKE.task_timeout:.0f} s | the task is handed out again"),
    ("testing.md", f"| `max_attempts` | {PRODUCTION_LIKE.max_attempts} |"),
    ("console.md", f"the latest {PRODUCTION_LIKE.history:,} are kept"),
]


@pytest.mark.parametrize(("name", "text"), CONSTANTS)
def test_a_page_has_the_figure_of_the_code(name, text):
    assert text in page(name)


def endurance() -> list[str]:
    """Return what the page about correctness says of the run at every release."""
    forgotten = "lost with the orchestrator's memory"
    releases = figures("endurance")["releases"]
    ends: Counter[str] = Counter()
    jobs: Counter[str] = Counter()
    for each in releases:
        for who, how in each["ends"].items():
            ends.update({f"{who} {signal}": count for signal, count in how.items()})
        jobs.update(each["jobs"])
    calls, broken = (sum(sum(each[key].values()) for each in releases) for key in ("calls", "broken"))
    return [
        f"{jobs.total()} jobs, {calls:,} calls, {broken} of them broken, {sum(each['cuts'] for each in releases)} cuts",
        f"{ends['worker SIGKILL']} kills and {ends['worker SIGTERM']} orderly ends of workers",
        f"{ends['orchestrator SIGKILL']} kills of orchestrators",
        f"Of the jobs, {jobs['finished']} finished, {jobs[forgotten]} were forgotten by an orchestrator",
        f"and {jobs['failed'] + jobs['quarantined']} failed or were quarantined",
    ]


def soak() -> list[str]:
    """Return what it says of the soak."""
    ran = figures("soak-faults")
    worker, orchestrator = ran["ends"]["worker"], ran["ends"]["orchestrator"]
    return [
        f"{worker['SIGKILL'] + orchestrator['SIGKILL']} kills and {worker['SIGTERM']} orderly ends",
        f"{sum(ran['broken'].values()):,} broken calls, {ran['results']['accepted']:,} jobs",
        f"{ran['on_disk_at_a_kill']} results were on disk",
    ]


def mutation() -> list[str]:
    """Return what it says of the mutants."""
    modules = figures("mutation").values()
    mutants, ran, found, equivalent, survivors = (
        sum(each[key] for each in modules) for key in ("mutants", "run", "killed", "equivalent", "surviving")
    )
    return [
        f"{ran:,} of {mutants:,} mutants ran",
        f"{found:,} were found, {equivalent} can be noticed by no test, and {survivors} survived",
    ]


def speed() -> list[str]:
    """Return what the front page says of speed and memory."""
    free = figures("2026-11-28-150200")["medians"]
    memory = figures("2026-11-28-150735")["medians"]
    many, one = free["slots-50"], free["slots-1"]
    worker = memory["memory"]["worker"]
    return [
        f"a task takes {many['worker']['cpu_us_per_task']:.0f} µs of CPU time",
        f"(1.0b20) takes {many['official']['cpu_us_per_task']:.0f} µs",
        f"it runs {one['worker']['tasks_per_s']:,.0f} tasks a second",
        f"the official SDK runs {one['official']['tasks_per_s']:.0f}.",
        f"An idle worker takes {memory['idle']['worker']['idle_rss_mib']:.1f} MiB",
        f"After 10,000 tasks it takes {worker['rss_tenth_mib']:.1f} MiB",
        f"after 100,000 it takes {worker['rss_end_mib']:.1f} MiB",
    ]


def cluster() -> list[str]:
    """Return what the page about deployment says of the run with faults."""
    ran = figures("cluster-2000")
    took = ran["seconds_of_a_job"]
    (connections,) = re.findall(r"(\d+) connections", " ".join(ran["faults"]))
    return [
        f"| {ran['jobs']:,} finished, none failed",
        f"given out more than once | {ran['given_out_more_than_once']} |",
        f"{ran['seconds']:.0f} s ({ran['jobs'] / ran['seconds']:.0f} jobs a second",
        f"up to {took['p50']} s, 99 % up to {took['p99']:.1f} s, the slowest {took['max']:.1f} s",
        f"all {connections} connections to Redis cut",
    ]


def telemetry() -> list[str]:
    """Return what the page about observability says of its cost."""
    took = {name: each["cpu_us_per_task"] for name, each in figures("telemetry")["medians"].items()}
    return [
        f"| {name} | {took[key]:.0f} µs | × {took[key] / took['off']:.3g} |"
        for name, key in (("metrics", "metrics"), ("metrics and traces over OTLP", "metrics and traces"))
    ]


def prefetch() -> list[str]:
    """Return the table of the page about limits."""
    idle = {(each["prefetch"], each["round_trip_s"]): each["idle_percent"] for each in figures("prefetch")["best"]}
    return [f"| {each} | {idle[each, 0.05]} % | {idle[each, 0.1]} % |" for each in (0, 1, 2, 4)]


def checkpoints() -> list[str]:
    """Return what the page about checkpoints says of the killed workers."""
    there, s3 = figures("checkpoints"), figures("checkpoints-s3")
    assert there["right"]
    assert s3["right"]
    assert there["left"] == s3["left"] == []
    return [f"{there['steps']} steps were done with a directory", f"and {s3['steps']} with S3"]


def stampede() -> list[str]:
    """Return the rows of the page about scale."""
    return [
        f"{each['peak_per_second']:,} | {each['given_up']:,} | {each['quiet_after']:.0f} s |"
        for each in figures("stampede")["courses"]
        if each["workers"] > 1000
    ]


MEASURED = {
    endurance: "explanation/correctness.md",
    soak: "explanation/correctness.md",
    mutation: "explanation/correctness.md",
    speed: "README.md",
    cluster: "deployment.md",
    telemetry: "observability.md",
    prefetch: "guide/limits.md",
    checkpoints: "howto/checkpoints.md",
    stampede: "scale.md",
}


@pytest.mark.parametrize("measured", MEASURED, ids=lambda measured: measured.__name__)
def test_a_page_has_the_figures_that_were_measured(measured):
    text = page(MEASURED[measured])
    assert [each for each in measured() if each not in text] == []
