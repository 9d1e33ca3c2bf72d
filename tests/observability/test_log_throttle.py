"""A fault that persists is logged at once, then once a minute with how often."""

import logging

import pytest

from avtomatika_worker.observability.log_throttle import LogThrottle

LOG = logging.getLogger("avtomatika_worker.test")


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    repeats = LogThrottle(lambda: now[0])

    def log(at, text="no answer", **named):
        now[0] = at
        before = len(caplog.records)
        repeats.log(LOG, logging.WARNING, "fault: %s", text, **{"action": "poll_failed", **named})
        return [record.getMessage() for record in caplog.records[before:]]

    return log


def test_an_hour_of_failures_is_a_page_of_log(logged):
    lines = [line for second in range(3600) for line in logged(float(second))]
    assert len(lines) == 60
    assert lines[:2] == ["fault: no answer", "fault: no answer (59 more since the last such line, 60 s ago)"]


def test_another_fault_is_logged_at_once(logged):
    assert logged(0.0)
    assert not logged(1.0)
    assert logged(2.0, action="result_retry")
    assert logged(3.0, kind=("RejectedError", 401))
    assert not logged(4.0, "other words for the same", kind=("RejectedError", 401))


def test_what_comes_back_after_a_quiet_time_is_logged_as_it_was_the_first_time(logged):
    logged(0.0)
    assert logged(1000.0) == ["fault: no answer"]
