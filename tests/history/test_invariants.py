"""Each invariant holds in a good history, and fails in one with the fault that it is about."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from avtomatika_worker.testing.history import INVARIANTS, Entry, History, Kind

A, B, W, T, J = "http://a", "http://b", "w", "t", "j"


class Story:
    """Writes entries, one after another, 0.1 s apart."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.now = 0.0
        self._numbers = itertools.count(1)

    def add(
        self,
        kind: Kind,
        *,
        at: str = A,
        worker: str = W,
        task: str = "",
        job: str = "",
        after: float = 0.1,
        **facts: Any,
    ) -> None:
        self.now += after
        self.entries.append(
            Entry(at=self.now, kind=kind, orchestrator=at, worker_id=worker, task_id=task, job_id=job, facts=facts)
        )

    def started(self, slots: int = 2, lease: float = 60.0) -> None:
        self.add(Kind.ORCHESTRATOR_STARTED, worker="", lease=lease)
        self.call("register", code=200, slots=slots)

    def call(
        self,
        name: str,
        *,
        at: str = A,
        code: int = 200,
        task: str = "",
        job: str = "",
        after: float = 0.1,
        **facts: Any,
    ) -> None:
        number = next(self._numbers)
        sent = {"event_id": None, "event_type": None, "status": None, **facts} if name == "event" else facts
        self.add(Kind.CALL_SENT, at=at, task=task, job=job, after=after, call=name, number=number, **sent)
        self.add(Kind.CALL_ANSWERED, at=at, task=task, job=job, call=name, number=number, code=code, **sent)

    def polls(self, number: int, at: str = A, after: float = 0.1) -> None:
        self.add(Kind.CALL_SENT, at=at, after=after, call="poll", number=number)

    def begins_poll(self, at: str = A) -> None:
        self.add(Kind.POLLING, at=at, after=0.01)

    def handed_out(self, task: str = T, job: str = J, **params: Any) -> None:
        self.call("poll")
        self.add(Kind.HANDED_OUT, task=task, job=job, skill="echo", params=params)

    def worked(self, task: str = T, job: str = J) -> None:
        self.add(Kind.WORK_STARTED, task=task, job=job, skill="echo")
        self.add(Kind.WORK_ENDED, task=task, job=job, skill="echo", status="success")

    def result(self, task: str = T, job: str = J, *, code: int = 200, answer: str | None = "accepted") -> None:
        self.call("result", task=task, job=job, code=code, answer=answer, status="success")

    def event(self, name: str, task: str = T, *, answer: str | None = "event_accepted", code: int = 200) -> None:
        self.call("event", task=task, job=J, event_id=name, event_type="note", answer=answer, code=code)

    def ended(self, state: str = "finished") -> None:
        self.add(Kind.JOB_ENDED, task=T, job=J, state=state)


def good() -> Story:
    """A task with two events, whose first result is lost on its way back, and a goodbye."""
    story = Story()
    story.started()
    story.call("heartbeat", status="idle")
    story.handed_out(text="hello")
    story.event("1")
    story.event("2", answer=None, code=503)
    story.event("2")
    story.worked()
    story.result(answer=None, code=0)
    story.result()
    story.ended()
    story.call("heartbeat", status="offline")
    return story


def test_nothing_contradicts_a_good_history() -> None:
    assert History(good().entries).violations() == []


def test_nothing_contradicts_an_empty_history() -> None:
    assert History().violations() == []


def accepted_twice(story: Story) -> None:
    story.handed_out()
    story.worked()
    story.result()
    story.result()


def finished_without_a_result(story: Story) -> None:
    story.handed_out()
    story.ended()


def ran_twice_at_once(story: Story) -> None:
    story.handed_out("t1", x=1)
    story.handed_out("t2", x=1)
    for kind in (Kind.WORK_STARTED, Kind.WORK_ENDED):
        story.add(kind, task="t1", job=J, skill="echo", status="success")
        if kind is Kind.WORK_STARTED:
            story.add(kind, task="t2", job=J, skill="echo", status="success")
    story.add(Kind.WORK_ENDED, task="t2", job=J, skill="echo", status="success")
    story.result("t1", answer="ignored")
    story.result("t2")


def no_final_answer(story: Story) -> None:
    story.handed_out()
    story.worked()
    story.result(code=503, answer=None)


def lost_at_the_end(story: Story) -> None:
    story.handed_out()
    story.worked()
    story.add(Kind.RESULT_GIVEN_UP, task=T, job=J, reason="result_lost")


def event_after_the_result(story: Story) -> None:
    story.handed_out()
    story.worked()
    story.result()
    story.event("late")


def events_swapped(story: Story) -> None:
    story.handed_out()
    story.event("1", code=503, answer=None)
    story.event("2")
    story.event("1")


def too_many_tasks(story: Story) -> None:
    for number in range(3):
        story.add(Kind.WORK_STARTED, task=f"t{number}", job=f"j{number}", skill="echo")


def too_many_polls(story: Story) -> None:
    story.add(Kind.WORK_STARTED, task=T, job=J, skill="echo")
    story.add(Kind.CALL_SENT, call="poll", number=101)
    story.add(Kind.CALL_SENT, call="poll", number=102)


def too_many_polls_at_two(story: Story) -> None:
    story.call("register", at=B, slots=2)
    story.polls(101)
    story.polls(102, at=B, after=0.05)
    story.polls(103, at=B, after=0.05)


def too_many_polls_begun(story: Story) -> None:
    """They arrive late, but were begun together."""
    for _ in range(3):
        story.begins_poll()
    story.polls(101, after=0.4)
    story.polls(102, after=0.01)
    story.polls(103, after=0.01)


def too_many_polls_when_a_lent_one_is_answered(story: Story) -> None:
    """It is answered with nothing, so that no slot is free for another."""
    story.polls(101)
    story.call("register", slots=2)  # the poll lends its slot
    story.polls(102, after=0.3)
    story.polls(103, after=0.05)
    story.add(Kind.CALL_ANSWERED, call="poll", number=101, code=204, after=0.05)
    story.polls(104, after=0.05)


def no_heartbeats(story: Story) -> None:
    story.call("heartbeat", status="idle")
    story.call("poll", after=61)


def late_by_its_own_promise(story: Story) -> None:
    story.add(Kind.HEARTBEATS_PROMISED, seconds=5.0)
    story.call("heartbeat", status="idle")
    story.call("heartbeat", status="idle", after=6)


def later_than_its_settings_say(story: Story) -> None:
    story.add(Kind.HEARTBEATS_CONFIGURED, seconds=22.5)
    story.call("heartbeat", status="idle")
    story.call("poll", after=40)


def a_poll_after_goodbye(story: Story) -> None:
    story.call("heartbeat", status="offline")
    story.call("poll", after=1)


def ran_although_refused(story: Story) -> None:
    story.handed_out()
    story.add(Kind.NOT_RUN, task=T, job=J)
    story.worked()
    story.result()


FAULTS = {
    accepted_twice: "one_accepted_result",
    finished_without_a_result: "one_accepted_result",
    ran_twice_at_once: "work_never_doubled",
    no_final_answer: "results_settled",
    lost_at_the_end: "results_settled",
    event_after_the_result: "events_before_result",
    events_swapped: "events_in_order",
    too_many_tasks: "slots_not_exceeded",
    too_many_polls: "polls_within_free_slots",
    too_many_polls_at_two: "polls_within_free_slots",
    too_many_polls_begun: "polls_within_free_slots",
    too_many_polls_when_a_lent_one_is_answered: "polls_within_free_slots",
    no_heartbeats: "heartbeats_in_time",
    late_by_its_own_promise: "heartbeats_in_time",
    later_than_its_settings_say: "heartbeats_in_time",
    a_poll_after_goodbye: "silent_after_offline",
    ran_although_refused: "refused_never_ran",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_contradicts_its_invariant_and_no_other(fault: Any) -> None:
    story = Story()
    story.started()
    fault(story)
    found = {violation.invariant for violation in History(story.entries).violations()}
    assert found == {FAULTS[fault]}


def test_every_invariant_has_a_fault() -> None:
    assert set(FAULTS.values()) == set(INVARIANTS)


def allowed_although_it_looks_like_a_fault() -> dict[str, Story]:
    stories = {
        name: Story() for name in ("stored", "expired", "refused for good", "again", "new life", "restart", "taken up")
    }
    for name, story in stories.items():
        story.started(slots=2 if name == "taken up" else 1)
    for name in ("stored", "expired", "refused for good"):
        stories[name].handed_out()
        stories[name].worked()
    stories["stored"].add(Kind.RESULTS_STORED, worker="", count=1)
    stories["expired"].add(Kind.RESULT_GIVEN_UP, task=T, job=J, reason="result_expired")
    stories["refused for good"].result(code=413, answer=None)
    taken_up = stories["taken up"]
    taken_up.handed_out("t1")
    taken_up.add(Kind.WORK_STARTED, task="t1", job=J, skill="echo")
    taken_up.handed_out("t2")  # while it runs: it goes on under the new id
    taken_up.add(Kind.WORK_ENDED, task="t1", job=J, skill="echo", status="success")
    taken_up.result("t2")
    for _ in range(2):  # under the same id, as up to 1.0b10
        stories["again"].handed_out()
        stories["again"].event(f"{stories['again'].now}")
        stories["again"].worked()
        stories["again"].result()
    stories["new life"].call("heartbeat", status="offline")
    stories["new life"].call("register", code=200, slots=1)
    stories["new life"].call("poll")
    stories["restart"].call("heartbeat", status="idle")
    stories["restart"].add(Kind.ORCHESTRATOR_STOPPED, worker="")
    stories["restart"].add(Kind.ORCHESTRATOR_STARTED, worker="", lease=60.0)
    stories["restart"].call("register", code=200, slots=1, after=100)
    return stories


def lends_to_another(story: Story) -> None:
    story.call("register", at=B, slots=1)
    story.polls(101)
    story.polls(102, at=B, after=0.6)


def is_lent_when_contact_breaks(story: Story) -> None:
    story.call("register", at=B, slots=1)
    story.polls(101)
    story.call("heartbeat", code=503, after=0.05, status="idle")
    story.polls(102, at=B, after=0.02)


def has_lent_long_before_it_arrives(story: Story) -> None:
    story.call("register", at=B, slots=1)
    story.begins_poll()
    story.polls(101, after=0.45)
    story.begins_poll(at=B)
    story.polls(102, at=B, after=0.01)


def began_before_the_worker_registers_again(story: Story) -> None:
    story.begins_poll()
    story.call("register", slots=1)
    story.polls(101, after=0.01)
    story.begins_poll()
    story.polls(102, after=0.02)


def is_on_its_way_while_the_worker_registers_again(story: Story) -> None:
    story.call("register", slots=1)
    story.polls(101, after=0.01)  # sent before, on another connection
    story.polls(102, after=0.02)


def another_lends_for_a_task(story: Story) -> None:
    """The first poll, which has lent its slot, brings a task: that runs in the slot of the second."""
    story.call("register", at=B, slots=1)
    story.polls(101)
    story.polls(102, at=B, after=0.6)
    story.add(Kind.CALL_ANSWERED, call="poll", number=101, code=200, after=0.02)
    story.add(Kind.HANDED_OUT, task=T, job=J, skill="echo", params={}, after=0.0)
    story.worked()
    story.result()
    story.polls(103)


def one_on_its_way_lends_for_a_task(story: Story) -> None:
    """The worker has sent a second poll when the task of the first comes, which has lent its slot."""
    story.call("register", at=B, slots=1)
    story.polls(101)
    story.add(Kind.CALL_ANSWERED, call="poll", number=101, code=200, after=0.6)
    story.add(Kind.WORK_STARTED, task=T, job=J, skill="echo", after=0.01)
    story.polls(102, at=B, after=0.01)
    story.add(Kind.WORK_ENDED, task=T, job=J, skill="echo", status="success")
    story.result()


def is_late_after_a_break(story: Story) -> None:
    story.add(Kind.HEARTBEATS_CONFIGURED, seconds=22.5)
    story.call("heartbeat", code=503, status="idle")
    story.call("result", code=503, after=40)
    story.call("register", slots=1)


def begins_again_after_a_while(story: Story) -> None:
    story.add(Kind.HEARTBEATS_CONFIGURED, seconds=22.5)
    story.call("heartbeat", status="idle")
    story.call("register", after=40, slots=1)


@pytest.mark.parametrize(
    "life",
    [
        lends_to_another,
        is_lent_when_contact_breaks,
        has_lent_long_before_it_arrives,
        began_before_the_worker_registers_again,
        is_on_its_way_while_the_worker_registers_again,
        another_lends_for_a_task,
        one_on_its_way_lends_for_a_task,
        is_late_after_a_break,
        begins_again_after_a_while,
    ],
    ids=lambda life: life.__name__,
)
def test_valid_histories_violate_nothing(life: Any) -> None:
    story = Story()
    story.started(slots=1)
    life(story)
    assert History(story.entries).violations() == []


@pytest.mark.parametrize("name", allowed_although_it_looks_like_a_fault())
def test_what_is_allowed(name: str) -> None:
    assert History(allowed_although_it_looks_like_a_fault()[name].entries).violations() == []


def test_a_failed_check_shows_the_story_and_can_be_excepted() -> None:
    story = Story()
    story.started()
    no_final_answer(story)
    history = History(story.entries)
    with pytest.raises(
        AssertionError,
        match=r"(?s)^results_settled: results without a final answer: 1.*\n\n.*handed out: worker w, job j",
    ):
        history.check()
    history.check(except_for={"results_settled"})
    with pytest.raises(ValueError, match="result_settled: no invariant; choose from one_accepted_result"):
        history.check(except_for={"result_settled"})


def test_the_documentation_lists_the_invariants() -> None:
    page = (Path(__file__).parents[2] / "docs" / "delivery.md").read_text("utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| (.+) \|$", page.partition("## Invariants")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert rows == [(name, invariant.__doc__) for name, invariant in INVARIANTS.items()]
