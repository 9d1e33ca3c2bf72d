"""Medians and ratios, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.scenarios import FIGURES, SCENARIOS, Figure, Figures, Settings

Results = dict[str, dict[str, list[Figures]]]
"""Scenario → side → the figures of each round."""

RESULTS: Final = Path(__file__).parent / "results"
_SIDES: Final = ("worker", "official", "bare loop")


def medians(results: Results) -> dict[str, dict[str, Figures]]:
    """Return the median of each figure."""
    return {
        scenario: {
            side: {name: statistics.median(each[name] for each in rounds if name in each) for name in rounds[0]}
            for side, rounds in sides.items()
            if rounds
        }
        for scenario, sides in results.items()
    }


def document(results: Results, settings: Settings, facts: dict[str, Any]) -> dict[str, Any]:
    """Return everything that was measured."""
    return {
        "machine": facts,
        "settings": dataclasses.asdict(settings),
        "medians": medians(results),
        "rounds": results,
    }


def write(found: dict[str, Any], path: Path | None = None) -> Path:
    """Write the JSON and return where it is."""
    moment = datetime.fromisoformat(found["machine"]["time"])
    target = path or RESULTS / f"{moment:%Y-%m-%d-%H%M%S}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rounded(found), indent=1, ensure_ascii=False) + "\n")
    return target


def show(results: Results, facts: dict[str, Any], how: str) -> None:
    """Print the table."""
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    table = Table(title=f"{facts['cpu']}, Python {facts['python']}, {facts['commit']}, {how}: medians")
    table.add_column("scenario")
    table.add_column("figure")
    for side in (*_SIDES, "to official", "of bare loop"):
        table.add_column(side, justify="right")
    about = {each.name: each for each in SCENARIOS}
    for scenario, sides in medians(results).items():
        names = dict.fromkeys(name for figures in sides.values() for name in figures)
        for index, name in enumerate(names):
            table.add_row(about[scenario].name if index == 0 else "", *_row(name, sides))
        table.add_section()
    console.print(table)


def _row(name: str, sides: dict[str, Figures]) -> list[str]:
    kind = FIGURES[name]
    values = [sides.get(side, {}).get(name) for side in _SIDES]
    ours, official, bare = values
    cells = [kind.unit, *("" if each is None else f"{each:,.{kind.digits}f}" for each in values)]
    return [*cells, _factor(ours, official), "" if not (ours and bare) else _share(ours, bare, kind)]


def _factor(ours: float | None, theirs: float | None) -> str:
    """Return ours as a multiple of theirs."""
    return f"x {ours / theirs:,.2f}" if ours is not None and theirs else ""


def _share(ours: float, bare: float, kind: Figure) -> str:
    """Return how much of the bare loop's speed is left."""
    return f"{100 * (ours / bare if kind.higher else bare / ours):.0f} %"


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < 10_000 else round(value)
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple | frozenset) else value
