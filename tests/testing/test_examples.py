"""The examples of docs/testing.md, run as their reader would run them; that the page shows them is `make check`'s."""

import re
from pathlib import Path

from own_pytest import example_output

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "testing"


def test_the_examples_pass():
    assert "16 passed" in example_output(EXAMPLES, "-W", "error")


def test_the_page_shows_every_example():
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    shown = re.findall(r"<!-- examples/testing/(\S+) -->\n```python\n", page)
    assert sorted(shown) == sorted(path.name for path in EXAMPLES.glob("*.py"))
