"""What is measured. A scenario measures one side once and returns its figures; the harness repeats and compares."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bench.control import PLENTY, StubControl
from bench.sides import FREE, ROOT, Placement, Running, Side, on_cores, running

Figures = dict[str, float]

_START_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How long, how thoroughly, where. ``seconds`` is each measurement's length; ``half_load`` tasks a second."""

    seconds: float = 8.0
    warm_up: float = 2.0
    idle_seconds: float = 60.0
    memory_tasks: int = 100_000
    heartbeats: int = 1_000
    heartbeat_seconds: float = 60.0
    protocol: str = "1.0b17"
    half_load: float = 1_000.0
    placement: Placement = FREE


@dataclass(frozen=True, slots=True)
class Scenario:
    """``measure`` one ``Side``; ``unit`` and ``better`` of each figure are in `FIGURES`."""

    name: str
    about: str
    measure: Callable[[Side, StubControl, Settings], Figures]
    sides: tuple[str, ...] = ("worker", "official")
    once: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """What a figure is. ``digits`` after the point; ``higher``: more is better."""

    unit: str
    higher: bool = False
    digits: int = 1


FIGURES: Final[Mapping[str, Figure]] = {
    "requests_per_s": Figure("requests/s", higher=True, digits=0),
    "tasks_per_s": Figure("tasks/s", higher=True, digits=0),
    "cpu_us_per_task": Figure("µs CPU/task", digits=0),
    "bytes_per_task": Figure("bytes/task", digits=0),
    "requests_per_task": Figure("requests/task", digits=2),
    "new_connections": Figure("new connections", digits=0),
    "latency_p50_ms": Figure("ms, p50", digits=2),
    "latency_p99_ms": Figure("ms, p99", digits=2),
    "total_p50_ms": Figure("ms from due, p50", digits=2),
    "total_p99_ms": Figure("ms from due, p99", digits=2),
    "idle_cpu_percent": Figure("% CPU idle", digits=2),
    "idle_bytes_per_min": Figure("bytes/min idle", digits=0),
    "idle_requests_per_min": Figure("requests/min idle"),
    "idle_rss_mib": Figure("MiB idle"),
    "first_poll_s": Figure("s to first poll", digits=3),
    "import_s": Figure("s", digits=3),
    "rss_start_mib": Figure("MiB at start"),
    "rss_tenth_mib": Figure("MiB after a tenth"),
    "rss_end_mib": Figure("MiB at the end"),
    "cpu_ms_per_heartbeat": Figure("ms CPU/heartbeat", digits=2),
    "bytes_per_heartbeat": Figure("bytes/heartbeat", digits=0),
    "heartbeats_per_s": Figure("heartbeats/s", higher=True, digits=0),
}


@dataclass(frozen=True, slots=True)
class Load:
    """A flood of tasks: ``slots`` at the worker, ``size`` bytes of params."""

    slots: int
    skill: str = "echo"
    size: int = 16
    env: Mapping[str, str] = field(default_factory=dict[str, str])


def throughput(load: Load) -> Callable[[Side, StubControl, Settings], Figures]:
    """Return what measures tasks per second while every poll is answered at once."""

    def measure(side: Side, stub: StubControl, settings: Settings) -> Figures:
        stub.new(version=settings.protocol, limit=PLENTY, skill=load.skill, size=load.size)
        with running(side, stub.url, slots=load.slots, env=load.env, placement=settings.placement) as process:
            stub.wait_until("results", 1, _START_TIMEOUT)
            time.sleep(settings.warm_up)
            stats, cpu, _ = _window(process, stub, settings.seconds)
            return _per_task(stats, cpu)

    return measure


def latency(side: Side, stub: StubControl, settings: Settings) -> Figures:
    """Hand out tasks at a rate, whether the worker asks or not."""
    plan = {"version": settings.protocol, "rate": settings.half_load}
    stub.new(version=settings.protocol, limit=0)
    with running(side, stub.url, slots=50, env={}, placement=settings.placement) as process:
        stub.wait_until("polls", 1, _START_TIMEOUT)
        stub.plan(limit=PLENTY, **plan)
        time.sleep(settings.warm_up)
        stats, cpu, _ = _window(process, stub, settings.seconds)
        figures = _per_task(stats, cpu)
        for name, source in (("latency", "latency"), ("total", "total")):
            figures |= {f"{name}_{each}_ms": value * 1_000 for each, value in stats[source].items()}
        return figures


def idle(side: Side, stub: StubControl, settings: Settings) -> Figures:
    """Let the worker wait for tasks that do not come."""
    stub.new(version=settings.protocol, limit=0)
    with running(side, stub.url, slots=10, env={}, placement=settings.placement) as process:
        stub.wait_until("polls", 1, _START_TIMEOUT)
        time.sleep(max(3.0, settings.warm_up))
        stats, cpu, seconds = _window(process, stub, settings.idle_seconds)
        return {
            "idle_cpu_percent": 100 * cpu / seconds,
            "idle_bytes_per_min": (stats["bytes_in"] + stats["bytes_out"]) * 60 / seconds,
            "idle_requests_per_min": _requests(stats) * 60 / seconds,
            "new_connections": stats["connections"],
            "idle_rss_mib": process.usage().rss,
        }


def light(side: Side, stub: StubControl, settings: Settings) -> Figures:
    """Hand out two tasks a second: what a task costs on the wire when the traffic between them counts, too."""
    stub.new(version=settings.protocol, limit=0)
    with running(side, stub.url, slots=10, env={}, placement=settings.placement) as process:
        stub.wait_until("polls", 1, _START_TIMEOUT)
        stub.plan(version=settings.protocol, rate=2.0, limit=PLENTY)
        time.sleep(max(3.0, settings.warm_up))
        stats, cpu, _ = _window(process, stub, settings.idle_seconds)
        return _per_task(stats, cpu)


def start_up(side: Side, stub: StubControl, settings: Settings) -> Figures:
    """Time from starting the process to its first poll."""
    stub.new(version=settings.protocol, limit=0)
    with running(side, stub.url, slots=10, env={}, placement=settings.placement) as process:
        stats = stub.wait_until("polls", 1, _START_TIMEOUT)
        return {"first_poll_s": stats["polled_at"] - process.started}


def import_time(side: Side, stub: StubControl, settings: Settings) -> Figures:
    """Time ``import avtomatika_worker`` in a fresh interpreter, the interpreter's own start not counted."""
    del stub
    code = "import time; t = time.perf_counter(); import avtomatika_worker; print(time.perf_counter() - t)"
    with on_cores(settings.placement.side):
        done = subprocess.run([side.python, "-c", code], capture_output=True, check=True, text=True, cwd=ROOT / "bench")
    return {"import_s": float(done.stdout)}


def memory(side: Side, stub: StubControl, settings: Settings) -> Figures:
    """Run many tasks and look at the memory before, after a tenth, and after all."""
    total = settings.memory_tasks
    stub.new(version=settings.protocol, limit=0)
    with running(side, stub.url, slots=50, env={}, placement=settings.placement) as process:
        stub.wait_until("polls", 1, _START_TIMEOUT)
        time.sleep(2)
        figures = {"rss_start_mib": process.usage().rss}
        for name, count in (("rss_tenth_mib", total // 10), ("rss_end_mib", total - total // 10)):
            stub.reset()
            stub.plan(version=settings.protocol, limit=count)
            stub.wait_until("results", count, 600)
            time.sleep(1)
            figures[name] = process.usage().rss
        return figures


def heartbeats(side: Side, stub: StubControl, settings: Settings) -> Figures:
    """Let a worker of 200 skills send 1,000 heartbeats as fast as it can be made to, and look at what one costs.

    The official worker sends one every other second at best: then there are as many as the time allows.
    """
    stub.new(version=settings.protocol, limit=0)
    env = {"BENCH_SKILLS": "200", "HEARTBEAT_INTERVAL": "0.01"}
    with running(side, stub.url, slots=10, env=env, placement=settings.placement) as process:
        stub.wait_until("heartbeats", 5, _START_TIMEOUT)
        before = process.usage()
        stub.reset()
        until = time.monotonic() + settings.heartbeat_seconds
        while (stats := stub.stats())["heartbeats"] < settings.heartbeats and time.monotonic() < until:
            time.sleep(0.1)
        after = process.usage()
        return {
            "cpu_ms_per_heartbeat": 1_000 * (after.cpu - before.cpu) / stats["heartbeats"],
            "bytes_per_heartbeat": (stats["bytes_in"] + stats["bytes_out"]) / stats["heartbeats"],
            "heartbeats_per_s": stats["heartbeats"] / stats["seconds"],
        }


def stub_capacity(side: Side, stub: StubControl, settings: Settings) -> Figures:
    """Flood the stub from a raw client on the worker's cores."""
    stub.new(version=settings.protocol, limit=PLENTY)
    command = [str(side.python), "-m", "bench.flood", str(stub.port), str(min(5.0, settings.seconds)), "50", "1"]
    with on_cores(settings.placement.side):
        done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT)
    return {"requests_per_s": float(done.stdout)}


def _window(process: Running, stub: StubControl, seconds: float) -> tuple[dict[str, Any], float, float]:
    """Return what the stub counted within so many seconds, the CPU seconds used meanwhile, and the seconds."""
    stub.reset()
    before = process.usage()
    time.sleep(seconds)
    stats, after = stub.stats(), process.usage()
    return stats, after.cpu - before.cpu, after.at - before.at


def _per_task(stats: dict[str, Any], cpu: float) -> Figures:
    """Return a window's figures by task. Raises RuntimeError when results are wrong: speed would mean nothing."""
    done = stats["results"]
    if not done or stats["wrong"] or stats["unknown_results"] > done // 20:
        raise RuntimeError(f"the results are not right: {stats}")
    return {
        "tasks_per_s": done / stats["seconds"],
        "cpu_us_per_task": 1e6 * cpu / done,
        "bytes_per_task": (stats["bytes_in"] + stats["bytes_out"]) / done,
        "requests_per_task": _requests(stats) / done,
        "new_connections": stats["connections"],
    }


def _requests(stats: dict[str, Any]) -> int:
    """Return how many there were of every kind."""
    return sum(stats[kind] for kind in ("polls", "results", "heartbeats", "events", "other"))


_LARGE: Final = {"MAX_RESULT_BYTES": str(2**22)}  # the stub takes more than orchestrators do
_PROCESSES: Final = {"BENCH_PROCESSES": "1", "WORKER_SKILL_PROCESSES": "2"}
_ALL: Final = ("worker", "official", "bare loop")

SCENARIOS: Final = (
    Scenario("stub", "what the stub serves to a raw client", stub_capacity, ("bare loop",), once=True),
    Scenario("slots-1", "throughput with 1 slot", throughput(Load(1)), _ALL),
    Scenario("slots-10", "throughput with 10 slots", throughput(Load(10)), _ALL),
    Scenario("slots-50", "throughput with 50 slots", throughput(Load(50)), _ALL),
    Scenario("slots-200", "throughput with 200 slots", throughput(Load(200)), _ALL),
    Scenario("params-1k", "1 KiB of params, echoed, 50 slots", throughput(Load(50, size=2**10)), _ALL),
    Scenario("params-64k", "64 KiB of params, echoed, 50 slots", throughput(Load(50, size=2**16)), _ALL),
    Scenario("params-1m", "1 MiB of params, echoed, 10 slots", throughput(Load(10, size=2**20, env=_LARGE)), _ALL),
    Scenario("threads", "plain def skills in threads, 50 slots", throughput(Load(50, skill="echo_thread"))),
    Scenario(
        "processes",
        "plain def skills in 2 processes on the worker's cores, 10 slots",
        throughput(Load(10, skill="echo_process", env=_PROCESSES)),
        ("worker",),
    ),
    Scenario(
        "processes-64k",
        "the same with 64 KiB of params, echoed",
        throughput(Load(10, skill="echo_process", size=2**16, env=_PROCESSES)),
        ("worker",),
    ),
    Scenario("latency", "from hand-out to result at half of the official's load", latency, _ALL),
    Scenario("idle", "an idle worker: CPU, traffic, memory", idle),
    Scenario("light", "two tasks a second: what one costs on the wire, all traffic counted", light),
    Scenario("start-up", "from starting the process to its first poll", start_up),
    Scenario("import", "import avtomatika_worker", import_time),
    Scenario("memory", "resident memory over many tasks", memory),
    Scenario("heartbeats", "1,000 heartbeats of a worker with 200 skills", heartbeats),
)
