"""The example of docs/execution.md, run as its reader would run it."""

from pathlib import Path

import pytest

from needs import needs
from own_pytest import example_output

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "model"


@needs("sklearn")
@pytest.mark.timeout(300)  # scikit-learn is imported six times: seconds each on a busy machine
def test_the_model_of_the_example_classifies():
    assert "3 passed" in example_output(EXAMPLE, timeout=280)
