"""The example of docs/execution.md, run as its reader would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from needs import needs

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "model"
OPTIONS = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")


@needs("sklearn")
@pytest.mark.timeout(300)  # scikit-learn is imported six times: seconds each on a busy machine
def test_the_model_of_the_example_classifies():
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
    assert "3 passed" in done.stdout
