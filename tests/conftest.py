"""For all tests: a state directory of their own, and hypothesis measures no time on shared, noisy machines."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    """Workers of a test keep their undelivered results away from the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
