"""The dashboard and the alerts name only metrics that the worker has, and leave none out."""

import json
import re
import subprocess
from pathlib import Path

from avtomatika_worker.observability.metrics import METRICS, Kind
from generate_docs import prometheus_name
from needs import needs

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "worker.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"

NAMES = {prometheus_name(each): each for each in METRICS}


def named(text):
    """The metrics that an expression names, without the suffixes of a histogram's parts."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bworker_\w+", text)}


def expressions():
    dashboard = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_shows_every_metric_and_no_other():
    assert set().union(*map(named, expressions())) == NAMES.keys()


def test_the_dashboard_takes_rates_of_counters_and_quantiles_of_histograms():
    for expression in expressions():
        for name in named(expression):
            assert ("rate(" in expression) == (NAMES[name].kind is not Kind.GAUGE), expression
            assert ("histogram_quantile" in expression) == (NAMES[name].kind is Kind.HISTOGRAM), expression


def test_panels_do_not_overlap():
    taken = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + 7)}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_labels_of_expressions_are_those_of_the_metrics():
    known = {label.replace(".", "_") for each in METRICS for label in each.labels}
    texts = [*expressions(), ALERTS.read_text()]
    used = {label for text in texts for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(", ")}
    assert used <= known | {"le", "job", "instance"}


def test_alerts_name_only_metrics_that_exist():
    found = named(re.sub(r"#.*", "", ALERTS.read_text()))
    assert found
    assert found <= NAMES.keys()


@needs("promtool")
def test_promtool_accepts_the_alerts():
    done = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
