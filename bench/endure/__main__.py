"""Run a worker against every published orchestrator while both are killed, calls break and the network is cut.

    python -m bench.endure --minutes 30
    python -m bench.endure --minutes 3 --release 1.0b30 --seed 42

The minutes are shared out among the releases; two run side by side. Each has an orchestrator in an environment of its
own, with its default rate limits and a short timeout for tasks, a worker, and a proxy in between that breaks calls and
writes down all that goes through it. Of that, of the journal of what ran, the worker's file and its log, a history is
made and judged. Exits with 1 and what is wrong when something is; that release's files are kept then. Exits with 2
where a release cannot be installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from avtomatika_worker import __version__
from bench.endure.course import FINDINGS, Course, Plan
from bench.endure.workload import SOURCE
from bench.machine import local_facts
from bench.soak.processes import ROOT
from cluster.environments import InstallationError, python_of
from cluster.releases import PROTOCOLS
from cluster.system import BUCKET, put, s3_server

RESULT: Final = ROOT / "bench" / "results" / "endurance.json"
SIDE_BY_SIDE: Final = 2
NOT_INSTALLED: Final = 2
"""The exit code when a release cannot be installed: nothing was run."""

SHOWN: Final = 50
"""Findings of a release that the report has."""


async def endure(plans: list[Plan], directory: Path) -> list[dict[str, Any]]:
    """Run the releases, some side by side; return what each has come to."""
    s3 = s3_server(directory)
    s3.start()
    try:
        await asyncio.to_thread(s3.wait)
        await asyncio.to_thread(put, s3.url, BUCKET)
        await asyncio.to_thread(put, s3.url, f"{BUCKET}/{SOURCE}", b"hush")
        gate = asyncio.Semaphore(SIDE_BY_SIDE)

        async def run(plan: Plan) -> dict[str, Any]:
            async with gate:
                place = directory / plan.release
                place.mkdir()
                found = await Course(plan, place, s3.url).run()
                print(_line(found), flush=True)
                if found["findings"]:
                    print(f"seed {plan.seed}:", (place / FINDINGS).read_text("utf-8"), sep="\n", flush=True)
                return found

        return list(await asyncio.gather(*map(run, plans)))
    finally:
        s3.stop()


def _line(found: dict[str, Any]) -> str:
    findings = f"{len(found['findings'])} findings" if found["findings"] else "right"
    broken = sum(found["broken"].values())
    return f"{found['release']}: jobs {found['jobs']}, ends {found['ends']}, {broken} broken calls: {findings}"


def read_plans(arguments: list[str] | None) -> tuple[list[Plan], argparse.Namespace]:
    """Return what to do at each release, and the other options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of all releases together")
    parser.add_argument("--seed", type=int, default=None, help="decides what is left to chance; printed")
    parser.add_argument("--release", action="append", choices=list(PROTOCOLS), help="may be repeated; all without it")
    parser.add_argument("--rate", type=float, default=0.6, help="jobs a second")
    parser.add_argument("--broken", type=float, default=0.02, help="share of the calls that break")
    parser.add_argument("--kill-every", type=float, default=45.0, help="seconds between two ends of each process")
    parser.add_argument("--cut-every", type=float, default=40.0, help="seconds between two cuts of the network")
    parser.add_argument("--silence", type=float, default=40.0, help="seconds for which a silent answer is silent")
    parser.add_argument("--drain", type=float, default=180.0, help="seconds that the rest may take at the end")
    parser.add_argument("--report", type=Path, help=f"where figures go; {RESULT.relative_to(ROOT)} for --record")
    parser.add_argument("--record", action="store_const", const=RESULT, dest="report", help="write the figures there")
    parser.add_argument("--keep", action="store_true", help="keep histories and logs; they are when something is wrong")
    options = parser.parse_args(arguments)
    options.seed = options.seed if options.seed is not None else secrets.randbelow(10**6)
    releases = options.release or list(PROTOCOLS)
    seconds = options.minutes * 60 / len(releases)
    plans = [
        Plan(
            release, options.seed, seconds, options.rate, options.broken, options.kill_every, options.cut_every,
            options.silence, options.drain,
        )
        for release in releases
    ]  # fmt: skip
    return plans, options


def main(arguments: list[str] | None = None) -> int:
    """Run, print and write the report, return the exit code."""
    plans, options = read_plans(arguments)
    print(f"seed {options.seed}", flush=True)
    machine = local_facts()
    try:
        for plan in plans:
            python_of(plan.release)
    except InstallationError as error:
        print(error, file=sys.stderr)
        return NOT_INSTALLED
    directory = Path(tempfile.mkdtemp(prefix="endure-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else the processes would be left behind
    found = asyncio.run(endure(plans, directory))
    right = not any(each["findings"] for each in found)
    report = {
        "machine": machine,
        "worker": __version__,
        "seed": options.seed,
        "minutes": options.minutes,
        "right": right,
        "releases": [{**each, "findings": each["findings"][:SHOWN]} for each in found],
    }
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if options.keep or not right:
        print(f"repeat with --seed {options.seed}; histories, journals and logs: {directory}")
    else:
        shutil.rmtree(directory)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
