"""The embeddings of the example, in batches and one text at a time: the same model in the same worker."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

_FILE = Path(__file__).resolve().parents[2] / "examples" / "embeddings" / "embed.py"
_spec = importlib.util.spec_from_file_location("embed", _FILE)
assert _spec is not None
assert _spec.loader is not None
_embed: Any = importlib.util.module_from_spec(_spec)
sys.modules["embed"] = _embed
_spec.loader.exec_module(_embed)

worker = _embed.worker
Model = _embed.Model


@worker.skill
def embed_alone(text: str, model: Model) -> list[float]:
    """Make a vector of a text."""
    vectors: list[list[float]] = model.encode([text])
    return vectors[0]
