"""What is in deploy/, read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from avtomatika_worker.config.settings import setting_fields
from avtomatika_worker.skills.run_options import CANCEL_GRACE
from avtomatika_worker.supervisor import ANNOUNCE_TIMEOUT, FLUSH_TIMEOUT, REPORT_TIMEOUT
from needs import program, why_missing

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

FOREIGN = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_METRICS_EXPORTER"}
"""Variables of workers that the OpenTelemetry SDK reads."""


def settings() -> set[str]:
    """Return the environment variables that a worker reads."""
    return {setting.variable for _, setting in setting_fields().values()} | FOREIGN


def default(variable: str) -> Any:
    """Return the default of a worker's setting."""
    (found,) = [each.default for each, setting in setting_fields().values() if setting.variable == variable]
    return found


def longest_shutdown(timeout: float) -> float:
    """Return the seconds that a shutdown takes at most with this ``WORKER_SHUTDOWN_TIMEOUT``, as docs/operations.md has
    it: the steps' limits, and about a second each for flushing and closing.
    """
    return timeout + CANCEL_GRACE + 2 * ANNOUNCE_TIMEOUT + 2 * REPORT_TIMEOUT + FLUSH_TIMEOUT + 2.0


def compose() -> dict[str, Any]:
    """Return compose.yaml."""
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return document


def manifest(name: str) -> dict[str, Any]:
    """Return a file of ``deploy/kubernetes`` as it is written."""
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "kubernetes" / name).read_text())
    return document


def kustomized(variant: str) -> list[dict[str, Any]]:
    """Return what kustomize makes of a variant. Skips the test where it is not installed, or too old."""
    kubectl = program("kubectl")
    if kubectl is None:
        pytest.skip(why_missing("kubectl"))
    asking = [kubectl, "version", "--client", "--output=json"]
    version = subprocess.run(asking, capture_output=True, text=True, timeout=60, check=False)
    if "kustomizeVersion" not in json.loads(version.stdout):
        pytest.skip("kubectl is older than 1.24: its kustomize knows no labels")
    command = [kubectl, "kustomize", str(DEPLOY / "kubernetes" / variant)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))
