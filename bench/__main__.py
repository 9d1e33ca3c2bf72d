"""``python -m bench``: runs scenarios, the sides in turn, prints medians and ratios, and runs the other programs."""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
from pathlib import Path
from typing import Final

import click

from bench import report
from bench.control import StubControl, stub_running
from bench.machine import machine_facts
from bench.programs import PROGRAMS
from bench.scenarios import SCENARIOS, Figures, Scenario, Settings
from bench.sides import BARE, FREE, OURS, Side, official, pinned

QUICK: Final = Settings(
    seconds=2.0, warm_up=1.0, idle_seconds=10.0, memory_tasks=10_000, heartbeats=200, heartbeat_seconds=10.0
)
_NAMES: Final = [each.name for each in (*SCENARIOS, *PROGRAMS)]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[SCENARIO]...", type=click.Choice(_NAMES))
@click.option("--quick", is_flag=True, help="Short measurements, one round, nothing written: does it work at all?")
@click.option("--rounds", type=click.IntRange(1), help="How often the sides take turns (3; quick: 1).")
@click.option("--seconds", type=click.FloatRange(0.5), help="Length of one measurement of throughput (8; quick: 2).")
@click.option("--protocol", default="1.0b17", show_default=True, help="Version that the stub speaks.")
@click.option("--pinned", "pin", is_flag=True, help="The measured side on one core, all else on another: steadier.")
@click.option("--only", multiple=True, help="Sides to run: worker, official, 'bare loop'.")
@click.option("--list", "show", is_flag=True, help="List the scenarios and programs.")
@click.option("--output", type=click.Path(path_type=Path), help="Where the JSON goes (bench/results/<time>.json).")
def main(
    names: tuple[str, ...],
    quick: bool,
    rounds: int | None,
    seconds: float | None,
    protocol: str,
    pin: bool,
    only: tuple[str, ...],
    show: bool,
    output: Path | None,
) -> None:
    """Measure this worker, the official one and a bare loop against one stub: all scenarios, unless some are named.

    Programs of their own, which measure this worker alone, are run afterwards.
    """
    if show:
        for each in (*SCENARIOS, *PROGRAMS):
            click.echo(f"{each.name:12} {each.about}")
        return
    placement = pinned() if pin else FREE
    settings = dataclasses.replace(QUICK if quick else Settings(), protocol=protocol, placement=placement)
    if seconds is not None:
        settings = dataclasses.replace(settings, seconds=seconds)
    wanted = {*names, "slots-50"} if "latency" in names else {*names}  # its load is half of the official's there
    chosen = [each for each in SCENARIOS if not wanted or each.name in wanted]
    if chosen:
        _compare(
            chosen, only, settings, rounds or (1 if quick else 3), output, "pinned" if pin else "free", quick=quick
        )
    for program in PROGRAMS:
        if not names or program.name in names:
            program.run(quick=quick)


def _compare(
    chosen: list[Scenario],
    only: tuple[str, ...],
    settings: Settings,
    rounds: int,
    output: Path | None,
    how: str,
    *,
    quick: bool,
) -> None:
    """Run the scenarios, print what they found, and write it."""
    sides = {each.name: each for each in (OURS, official(), BARE) if not only or each.name in only}
    facts = machine_facts()
    os.sched_setaffinity(0, settings.placement.stub)
    results = _run(chosen, sides, settings, rounds)
    os.sched_setaffinity(0, FREE.stub)
    facts["load_after"] = os.getloadavg()
    document = report.document(results, settings, facts)
    report.show(results, facts, how)
    if output or not quick:
        click.echo(f"written to {report.write(document, output)}")


def _run(chosen: list[Scenario], sides: dict[str, Side], settings: Settings, rounds: int) -> report.Results:
    """Run the scenarios, in each the sides in turn: A B A B."""
    results: report.Results = {}
    with stub_running(settings.placement) as stub:
        for scenario in chosen:
            taking_part = [sides[name] for name in scenario.sides if name in sides]
            measured = results[scenario.name] = {side.name: [] for side in taking_part}
            for turn in range(1 if scenario.once else rounds):
                for side in taking_part:
                    print(f"{scenario.name}, round {turn + 1}: {side.name}", file=sys.stderr, flush=True)
                    if (figures := _measure(scenario, side, stub, settings)) is not None:
                        measured[side.name].append(figures)
            settings = _with_half_load(settings, scenario, measured)
    return results


def _measure(scenario: Scenario, side: Side, stub: StubControl, settings: Settings) -> Figures | None:
    """Measure once; what fails is reported and left out, since the rest is worth having."""
    try:
        return scenario.measure(side, stub, settings)
    except (RuntimeError, OSError) as error:
        print(f"  failed: {error}", file=sys.stderr)
        return None


def _with_half_load(settings: Settings, scenario: Scenario, measured: dict[str, list[Figures]]) -> Settings:
    """Take half of what the official worker did at 50 slots as the load of the latency scenario."""
    found = measured.get("official")
    if scenario.name != "slots-50" or not found:
        return settings
    return dataclasses.replace(settings, half_load=statistics.median(each["tasks_per_s"] for each in found) / 2)


if __name__ == "__main__":
    main()
