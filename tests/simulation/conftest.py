"""Simulated worlds have a history and invariants of their own, in virtual time."""

import pytest


@pytest.fixture(autouse=True)
def history():
    """Leave the other one out."""
