"""State machines run parts of a worker in virtual time, with invariants of their own."""

import pytest


@pytest.fixture(autouse=True)
def history():
    """Leave the history of whole workers out."""
