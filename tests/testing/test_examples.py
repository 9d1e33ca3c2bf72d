"""The examples of docs/testing.md, run as their reader would run them; that the page shows them is `make check`'s."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "testing"
OPTIONS = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")


def test_the_examples_pass():
    options = [text for option in OPTIONS for text in ("-o", option)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-c",
            os.devnull,
            "-p",
            "no:cacheprovider",
            *options,
            ".",
        ],
        cwd=EXAMPLES,
        env={"PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 passed" in done.stdout


def test_the_page_shows_every_example():
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    shown = re.findall(r"<!-- examples/testing/(\S+) -->\n```python\n", page)
    assert sorted(shown) == sorted(path.name for path in EXAMPLES.glob("*.py"))
