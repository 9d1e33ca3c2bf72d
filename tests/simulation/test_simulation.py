"""A worker in a simulated world: whatever goes wrong there, what must be true of it is, and a seed replays exactly."""

import ast
import gc
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from avtomatika_worker.devserver.orchestrator_settings import DEFAULT_RATE_LIMITS
from simulation.command import run, shrunk
from simulation.faults import Answers, Crash, Partition, Redeployed
from simulation.mutants import MUTANTS, SOURCE
from simulation.scenario import Job, Scenario, draw

TESTS = Path(__file__).parents[1]
SETTINGS = {"max_concurrent_tasks": 2, "heartbeat_interval": 10.0, "shutdown_timeout": 2.0}


@pytest.fixture(autouse=True)
def collected():
    """A killed worker is a loop that nobody runs any more: its coroutines complain when they are collected."""
    yield
    hook, sys.unraisablehook = sys.unraisablehook, lambda _unraisable: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook


def simulated(*args):
    """Run seeds in a process of their own, in which sets have the same order each time."""
    command = [sys.executable, "-m", "simulation", *args]
    return subprocess.run(
        command, cwd=TESTS, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=110
    )


def scenario(*parts):
    jobs = tuple(each for each in parts if isinstance(each, Job))
    return Scenario(1, ("1.0b17",), jobs, tuple(each for each in parts if each not in jobs), SETTINGS)


def job(n, at, skill="quick", **params):
    return Job(at, 0, skill, {"n": n, "at": "o0", **params})


def test_the_first_seeds_hold():
    ended = simulated("--seeds", "500", "--seconds", "15", "--keep-going")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert int(re.search(r"([\d,]+) seeds", ended.stdout)[1].replace(",", "")) > 0


def test_a_seed_replays_exactly():
    seeds, figures = ("--seeds", "2", "--first", "7", "--story"), re.compile(r"; [\d.]+ s$")
    ended, again = simulated(*seeds, "--twice"), simulated(*seeds)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert figures.sub("", ended.stdout.strip()) == figures.sub("", again.stdout.strip())
    assert "skill of" in again.stdout


def test_time_passes_only_in_the_simulation():
    outcome = run(scenario(job(1, 1.0, "slow", seconds=30.0), Partition(5.0, 0, 60.0)))
    assert outcome.violations == []
    assert outcome.seconds > 60.0  # of the virtual time


@pytest.mark.parametrize("mode", ["ROUND_ROBIN", "FAILOVER"])
def test_at_the_default_limits_a_worker_that_runs_for_long_stays_known(mode):
    """Every call restarts the time in which calls are counted: heartbeats without a pause are refused in the end."""
    base = scenario(job(1, 1.0, "slow", seconds=2_000.0))
    settings = {**SETTINGS, "multi_orchestrator_mode": mode, "enable_websockets": False, "lease_lost_after": 60.0}
    limits = {"rate_limits": DEFAULT_RATE_LIMITS}
    outcome = run(replace(base, versions=("1.0b17", "1.0b7"), settings=settings, options=limits))
    assert outcome.violations == []
    assert "lease_lost" not in outcome.story
    assert "heartbeats_limited" in outcome.story


def test_a_worker_that_is_killed_and_started_again_delivers_what_it_had_kept():
    outcome = run(scenario(job(1, 1.0), Partition(1.0, 0, 20.0), Crash(10.0, 5, 5.0)))
    assert (outcome.violations, outcome.lives) == ([], 2)
    outcome = run(scenario(job(1, 1.0, "slow", seconds=5.0), Redeployed(2.0, None)))
    assert (outcome.violations, outcome.lives) == ([], 2)


@pytest.fixture
def forgetful(monkeypatch):
    """A disk that keeps nothing: a fault that a run has to find."""
    from simulation import disk

    monkeypatch.setattr(disk.DiskFile, "open", lambda self: [])


def test_what_fails_is_shrunk_to_the_least_and_printed_as_a_story(forgetful):
    lossy = scenario(
        *(job(n, float(n)) for n in range(1, 6)),
        job(9, 1.0, "slow", seconds=0.5),
        Answers(1.4, 0, "result", "status", 503, 100),
        Crash(20.0, 3, 5.0),
        Partition(70.0, 0, 1.0),
        Partition(80.0, 0, 1.0),
    )
    outcome = run(lossy)
    assert outcome.violations
    least = shrunk(outcome)
    assert least.violations
    assert len(least.scenario.jobs) < len(lossy.jobs)
    assert len(least.scenario.faults) < len(lossy.faults)
    assert "the worker is killed" in least.story
    assert "VIOLATION" in least.story


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_can_still_be_made(mutant):
    text = (SOURCE / mutant.file).read_text("utf-8")
    assert text.count(mutant.old) == 1
    ast.parse(text.replace(mutant.old, mutant.new))


def test_scenarios_are_of_their_seed():
    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    assert str(replace(draw(3), faults=())).count("\n") == len(draw(3).jobs)
