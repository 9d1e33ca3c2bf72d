"""``make bench`` runs the programs beside its scenarios; on a machine without a GPU there is nothing to measure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the benchmarks choose their cores")


def bench(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    env = {**os.environ, **environ}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_the_programs_are_listed_with_the_scenarios():
    done = bench("--list")
    assert {"slots-50", "batching", "gpu"} <= {line.split()[0] for line in done.stdout.splitlines()}


def test_without_a_gpu_it_says_so_and_does_not_fail():
    before = {*(ROOT / "bench" / "results").iterdir()}
    done = bench("gpu", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0
    assert "there is no GPU here, so nothing is measured" in done.stdout
    assert "failed" not in done.stderr
    assert {*(ROOT / "bench" / "results").iterdir()} == before
