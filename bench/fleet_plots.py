"""The plots of docs/scale.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WITH, WITHOUT, SEEN = "#1f6f8b", "#c8553d", "#444444"


def draw(measured: dict[str, Any], simulated: dict[str, Any]) -> list[Path]:
    """Write the plots; return where."""
    mpl.rcParams.update({"svg.hashsalt": "fleet", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    IMAGES.mkdir(parents=True, exist_ok=True)
    return [_stampede(simulated), _restart(measured, simulated)]


def _stampede(simulated: dict[str, Any]) -> Path:
    figure, panels = plt.subplots(2, 2, figsize=(9, 5.6), constrained_layout=True)
    courses = [each for each in simulated["courses"] if each["workers"] >= 10_000]
    for row, workers in enumerate((10_000, 100_000)):
        for column, outage in enumerate((5.0, 120.0)):
            chosen = [each for each in courses if each["workers"] == workers and each["outage"] == outage]
            _panel(panels[row][column], chosen, f"{workers:,} workers, away for {outage:.0f} s")
    panels[0][0].legend(frameon=False)
    return _save(figure, "stampede.svg")


def _panel(axes: Axes, courses: list[dict[str, Any]], title: str) -> None:
    outage = courses[0]["outage"]
    longest = max(outage + (each["quiet_after"] or 120.0) for each in courses)
    axes.axvspan(0, outage, color="#eeeeee", linewidth=0)
    for each in courses:
        tries = [max(count, 0.5) for count in each["tries"]][: int(longest) + 2]
        label, colour = ("with jitter", WITH) if each["jitter"] else ("without", WITHOUT)
        axes.step(range(len(tries)), tries, where="post", color=colour, label=label, linewidth=1.3)
    axes.set_yscale("log")
    axes.set_ylim(0.8, 3 * courses[0]["workers"])
    axes.set_xlim(0, longest + 2)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel("seconds after the break (grey: nobody answers)")
    axes.set_ylabel("registrations tried per second")


def _restart(measured: dict[str, Any], simulated: dict[str, Any]) -> Path:
    seen = measured["restart"]
    (course,) = [each for each in simulated["courses"] if each["workers"] == seen["wanted"] and each["jitter"]]
    figure, axes = plt.subplots(figsize=(7, 2.9), constrained_layout=True)
    axes.axvspan(0, seen["first_after"], color="#eeeeee", linewidth=0)
    count = range(len(seen["by_second"]))
    axes.bar([second + 0.5 for second in count], seen["by_second"], width=0.8, color=SEEN, alpha=0.45, label="measured")
    tries = (course["tries"] + [0] * len(count))[: len(count)]
    answered = [number if second >= int(course["outage"]) else 0 for second, number in enumerate(tries)]
    axes.step(count, answered, where="post", color=WITH, label="simulated", linewidth=1.5)
    axes.set_xlim(0, len(count))
    axes.set_xlabel("seconds after both orchestrators were killed (grey: nobody answers)")
    axes.set_ylabel("registrations per second")
    axes.set_title(f"{measured['memory']['workers']} workers, {seen['wanted']} links", fontsize=9, loc="left")
    axes.legend(frameon=False)
    return _save(figure, "restart.svg")


def _save(figure: Any, name: str) -> Path:
    path = IMAGES / name
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # matplotlib leaves blanks at the ends of lines.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path
