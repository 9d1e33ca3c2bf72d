"""For all tests: signals as usual, a state directory of their own, Hypothesis without time limits, nothing left behind.

Machines are shared and noisy. A suite that runs in the background of a shell, or under nohup, has signals ignored, and
every process that it starts would inherit that.
"""

import logging
import signal
import threading

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    """Workers of a test keep their undelivered results away from the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def nothing_left_behind(state_home):
    """A test leaves no log handler and no worker behind: what they do in later tests looks like those tests' own."""
    handlers, threads = set(logging.root.handlers), set(threading.enumerate())
    yield
    left = {each for each in logging.root.handlers if type(each).__module__.startswith("avtomatika_worker")} - handlers
    for each in left:
        logging.root.removeHandler(each)
    running = {each for each in set(threading.enumerate()) - threads if each.name in {"worker", "link"}}
    for each in running:
        each.join(10)  # it may be on its last lines
    assert not left
    assert not [each for each in running if each.is_alive()]
