"""A fault that goes on: told at once, then once a minute with how often."""

import logging

import pytest

from avtomatika_worker.observability.log_throttle import LogThrottle

LOG = logging.getLogger("avtomatika_worker.test")


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    repeats = LogThrottle(lambda: now[0])

    def tell(at, text="no answer", **named):
        now[0] = at
        before = len(caplog.records)
        repeats.log(LOG, logging.WARNING, "fault: %s", text, **{"action": "poll_failed", **named})
        return [record.getMessage() for record in caplog.records[before:]]

    return tell


def test_an_hour_of_failures_is_a_page_of_log(told):
    lines = [line for second in range(3600) for line in told(float(second))]
    assert len(lines) == 60
    assert lines[:2] == ["fault: no answer", "fault: no answer (59 more since the last such line, 60 s ago)"]


def test_another_fault_is_told_at_once(told):
    assert told(0.0)
    assert not told(1.0)
    assert told(2.0, action="result_retry")
    assert told(3.0, kind=("RejectedError", 401))
    assert not told(4.0, "other words for the same", kind=("RejectedError", 401))


def test_what_comes_back_after_a_quiet_time_is_told_as_it_was_the_first_time(told):
    told(0.0)
    assert told(1000.0) == ["fault: no answer"]
