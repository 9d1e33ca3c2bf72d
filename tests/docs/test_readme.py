"""The README's figures are those that were measured, and its links lead somewhere."""

import json
import re
from typing import Any

from docs.blocks import ROOT

README = (ROOT / "README.md").read_text("utf-8")
REASONS = README.partition("## Why use it")[2].partition("\n## ")[0]
RESULTS = ROOT / "bench" / "results"


def measured() -> dict[str, Any]:
    """Return the medians that bench/README.md stands on: those of a file that it names earlier win."""
    where = (ROOT / "bench" / "README.md").read_text("utf-8").partition("## Where it stands")[2]
    named = re.findall(r"`results/([\d-]+\.json)`", where.partition("\n## ")[0])
    assert len(named) >= 2
    medians: dict[str, Any] = {}
    for name in reversed(named):
        medians |= json.loads((RESULTS / name).read_text("utf-8"))["medians"]
    return medians


def reason(begins: str) -> str:
    (found,) = [each for each in REASONS.split("\n- ") if each.startswith(f"**{begins}")]
    return " ".join(found.split())


def test_speed_is_that_of_the_benchmarks():
    text = reason("It is fast")
    claims = (
        ("slots-50", "cpu_us_per_task", r"50 slots, a task takes {} µs\b[^.]*; the official SDK[^;]*? takes {} µs\."),
        ("slots-1", "tasks_per_s", r"a single slot, it runs {}\b[^.]*; the official SDK[^;]*? runs {}\."),
    )
    for scenario, figure, claim in claims:
        ours, official = (f"{measured()[scenario][side][figure]:,.0f}" for side in ("worker", "official"))
        assert re.search(claim.format(ours, official), text)
        assert f"`{scenario}`" in text


def test_memory_is_that_of_the_benchmarks():
    text = reason("It stays small")
    idle, memory = (measured()[scenario]["worker"] for scenario in ("idle", "memory"))
    assert f"idle worker takes {idle['idle_rss_mib']:.1f} MiB" in text
    assert f"After 10,000 tasks it takes {memory['rss_tenth_mib']:.1f} MiB" in text
    assert f"after 100,000 it takes {memory['rss_end_mib']:.1f} MiB" in text


def test_the_jobs_that_finished_are_those_of_the_cluster():
    text = reason("Results get through")
    run = json.loads((RESULTS / "cluster-2000.json").read_text("utf-8"))
    assert run["statuses"] == {"finished": run["jobs"]}
    assert f"all {run['jobs']:,} jobs finished, and {run['given_out_more_than_once']} were handed out more than" in text
    assert [fault.split(": ")[1].split()[0][:6] for fault in run["faults"]] == ["engine", "worker", "115"]


def test_there_are_six_reasons():
    assert len(re.findall(r"^- \*\*", REASONS, re.MULTILINE)) == 6


def test_links_and_pictures_lead_somewhere():
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert len(targets) == 14  # a logo, a picture and twelve links
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_idle_times_are_those_of_the_benchmarks():
    best = json.loads((RESULTS / "prefetch.json").read_text("utf-8"))["best"]
    idle = {(each["prefetch"], each["round_trip_s"]): each["idle_percent"] for each in best}
    page = (ROOT / "docs" / "guide" / "limits.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.MULTILINE)
    assert rows
    assert {
        (int(n), trip): float(share) for n, *row in rows for trip, share in zip((0.05, 0.1), row, strict=True)
    } == idle
    assert idle[2, 0.05] <= 5


def test_what_batches_bring_is_what_the_benchmark_found():
    found = json.loads((RESULTS / "batching-amd-epyc-2-cores.json").read_text("utf-8"))
    page = (ROOT / "docs" / "guide" / "batching.md").read_text("utf-8")
    factors = [float(each) for each in re.findall(r"\| x ([\d.]+) \|$", page, re.MULTILINE)]
    names = ("queries_cpu", "queries_tasks_per_s", "sentences_cpu", "sentences_tasks_per_s")
    ratios = found["ratios"]
    assert factors[:4] == [round(ratios[name], 1) for name in names]
    assert factors[4:] == [ratios["low_load_p50_ms"], ratios["low_load_p95_ms"]]
    assert ratios["queries_tasks_per_s"] >= 3
    assert ratios["low_load_p95_ms"] <= 1.1
