"""What can be read off messages without a codec."""

import pytest

from avtomatika_worker.protocol.messages import EventReply, ResultReply, Task


def task(**security):
    return Task(job_id="j", task_id="t", type="echo", security=security)


@pytest.mark.parametrize(
    ("security", "chain"),
    [
        ({}, None),
        ({"signature": "s"}, None),
        ({"identity_chain": "client"}, None),
        ({"identity_chain": []}, ("w1",)),
        ({"identity_chain": ["client", "o1"]}, ("client", "o1", "w1")),
        ({"identity_chain": ["client", 7, None]}, ("client", "w1")),
    ],
)
def test_a_worker_is_the_last_of_the_chain_that_its_task_came_with(security, chain):
    assert task(**security).chain_through("w1") == chain


@pytest.mark.parametrize("reason", ["stale_task", "worker_mismatch"])
def test_a_result_is_stale_when_another_attempt_counts(reason):
    assert ResultReply(status="ignored", reason=reason).stale
    assert not ResultReply(status="accepted", reason=reason).stale


def test_a_result_that_is_ignored_for_another_reason_is_not_stale():
    assert not ResultReply(status="ignored", reason="job_finished").stale
    assert not ResultReply(status="ignored").stale


@pytest.mark.parametrize(
    ("reply", "stale"),
    [
        ({"status": "error", "code": "STALE_TASK"}, True),
        ({"status": "error", "code": "job_cancelled"}, True),
        ({"status": "error", "code": "unknown"}, False),
        ({"status": "error"}, False),
        ({"status": "event_accepted", "code": "stale_task"}, False),
    ],
)
def test_an_event_is_stale_when_its_task_is_not_wanted_any_more(reply, stale):
    assert EventReply(**reply).stale is stale
