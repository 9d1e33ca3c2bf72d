"""Runs seeds, and shows the story of one that fails. ``python -m simulation --seeds 100``, in ``tests``."""

import argparse
import contextlib
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace

from simulation.mutants import hunt
from simulation.scenario import draw
from simulation.simulator import simulate


def arguments(given=None):
    parser = argparse.ArgumentParser(prog="make simulate ARGS=…", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seconds", type=float, default=None, help="stop after as many seconds")
    parser.add_argument("--keep-going", action="store_true", help="run all, and count what fails")
    parser.add_argument("--twice", action="store_true", help="run each twice, and compare what happens")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for the least that fails")
    parser.add_argument("--mutants", action="store_true", help="run the seeds on faulty copies of the worker")
    parser.add_argument("--only", default="", help="with --mutants: those whose description has this in it")
    parser.add_argument("--story", action="store_true", help="print what happens in each run")
    return parser.parse_args(given)


def with_fixed_hashes():
    """Begin again where sets of texts are in another order in each run: a seed stands for one run."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(  # noqa: S606 - the same program
            sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"}
        )


@contextlib.contextmanager
def chance_of(seed):
    """Let ids that the embedded orchestrator draws be the same in each run."""
    chance, usual = random.Random(f"ids {seed}"), os.urandom
    state = random.getstate()
    os.urandom = random._urandom = chance.randbytes
    random.seed(seed)
    try:
        yield
    finally:
        os.urandom = random._urandom = usual
        random.setstate(state)


def run(scenario):
    with chance_of(scenario.seed):
        return simulate(scenario)


def shrunk(outcome):
    """Return a failing run with fewer faults and jobs, as far as leaving them out one by one leads."""
    kinds = {_kind(each) for each in outcome.violations}
    for name in ("faults", "jobs"):
        for each in getattr(outcome.scenario, name):
            fewer = tuple(other for other in getattr(outcome.scenario, name) if other is not each)
            if name == "jobs" and not fewer:
                continue
            smaller = run(replace(outcome.scenario, **{name: fewer}))
            if kinds & {_kind(each) for each in smaller.violations}:
                outcome = smaller
    return outcome


def _kind(violation):
    return "".join(each for each in violation.split(":")[0] if not each.isdigit())[:24]


@dataclass
class Tried:
    """The outcome of a seed. ``text`` is to be printed."""

    seed: int
    totals: Counter
    seconds: float
    failed: bool
    text: str


def tried(seed, options):
    """Run a seed."""
    outcome, text = run(draw(seed)), []
    totals = Counter(seeds=1, steps=outcome.steps, lives=outcome.lives, jobs=len(outcome.scenario.jobs))
    totals["simulated seconds"] = round(outcome.seconds)
    totals["faults"] = len(outcome.scenario.faults)
    if options.twice and run(draw(seed)).story != outcome.story:
        outcome.violations.append("another run of the same seed: something else happened")
    if options.story:
        text += [str(outcome.scenario), outcome.story]
    if outcome.violations:
        text.append("\n  ".join([f"seed {seed} fails:", *dict.fromkeys(outcome.violations)]))
        if not options.no_shrink and not options.keep_going:
            least = shrunk(outcome)
            text += ["\nThe least that fails in this way:", str(least.scenario), "", least.story]
    return Tried(seed, totals, outcome.seconds, bool(outcome.violations), "\n".join(text))


def main(given=None):
    options = arguments(given)
    if options.mutants:
        sys.exit(1 if hunt(options.seeds, options.only) else 0)
    with_fixed_hashes()
    began, totals, failed, longest = time.monotonic(), Counter(), [], 0.0
    for seed in range(options.first, options.first + options.seeds):
        each = tried(seed, options)
        totals += each.totals
        longest = max(longest, each.seconds)
        if each.text:
            print(each.text, flush=True)
        if each.failed:
            failed.append(each.seed)
            if not options.keep_going:
                break
        if options.seconds is not None and time.monotonic() - began > options.seconds:
            break
    figures = ", ".join(f"{value:,} {name}" for name, value in totals.items())
    print(
        f"{figures}, the longest of {longest:.0f}; {len(failed)} failed {failed[:20]}; {time.monotonic() - began:.1f} s"
    )
    sys.exit(1 if failed else 0)
