"""For all tests: signals as usual, a state directory of their own, Hypothesis without time limits, nothing left behind.

Machines are shared and noisy. A suite that runs in the background of a shell, or under nohup, has signals ignored, and
every process that it starts would inherit that.
"""

import logging
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from avtomatika_worker.observability import logging as worker_logging

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# For `make mutation`: a mutant is found by the same examples each time, and nobody reads the smallest.
settings.register_profile(
    "mutation",
    settings.get_profile("untimed"),
    derandomize=True,
    max_examples=20,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile("untimed")

for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

LONGEST = (
    "docs/test_site.py",
    "services/test_faults.py",
    "processes/test_signals.py",
    "e2e/test_outages.py",
    "devserver/test_console_page.py",
    "services/test_heartbeat_process.py",
    "e2e/test_rate_limits.py",
    "testing/test_plugin.py",
    "examples/test_examples.py",
    "bench_soak/test_soak.py",
    "typing/test_types.py",
    "devserver/test_console_axe.py",
    "fleet/test_ends.py",
    "services/test_shutdown.py",
    "e2e/test_cluster.py",
    "e2e/test_shutdown.py",
    "e2e/test_streaming.py",
    "processes/test_ends.py",
    "cli/test_reload.py",
)
"""Files that take more than 25 s: where files run side by side, one that begins last keeps the others waiting."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep pytest-xdist from beginning with the files that have the most tests: those that take longest have few."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)  # pytest-randomly's order holds within these files, and for all others
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first."""
    here = Path(__file__).parent
    ranks = {here / name: rank for rank, name in enumerate(LONGEST)}
    if gone := [str(path) for path in ranks if not path.exists()]:
        raise pytest.UsageError(f"tests/conftest.py names files that do not exist: {', '.join(gone)}")
    if addresses := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"their names differ in each process, which pytest-xdist refuses: {addresses}")
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    """Workers of a test keep their undelivered results away from the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def logging_as_before():
    """What a test sets up of this process's logging ends with it: a worker repeats the last set-up when it starts."""
    root, was = logging.root, (worker_logging._set_up, worker_logging._in_effect)  # noqa: SLF001
    handlers, level = list(root.handlers), root.level
    yield
    worker_logging._set_up, worker_logging._in_effect = was  # noqa: SLF001 - there is no other way back
    root.setLevel(level)
    for each in [each for each in root.handlers if type(each).__module__.startswith("avtomatika_worker")]:
        if each not in handlers:
            root.removeHandler(each)


@pytest.fixture(autouse=True)
def nothing_left_behind(state_home):
    """A test leaves no worker behind: what it does in later tests looks like those tests' own."""
    threads = set(threading.enumerate())
    yield
    running = {each for each in set(threading.enumerate()) - threads if each.name in {"worker", "link"}}
    for each in running:
        each.join(10)  # it may be on its last lines
    assert not [each for each in running if each.is_alive()]


@pytest.fixture(autouse=True)
def history(worker_history):
    """Check the invariants of docs/delivery.md after every test that runs a worker.

    A test that breaks some on purpose names them: ``@pytest.mark.breaks_invariants("events_in_order")``.
    """
    return worker_history
