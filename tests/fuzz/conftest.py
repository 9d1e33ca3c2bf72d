"""What targets share is closed after each test: later ones look at the workers of their process."""

import pytest

from fuzz.server import Server


@pytest.fixture(autouse=True)
def closed_afterwards():
    yield
    Server.close_shared()
