"""A link's state and its gates go together, whichever threads change them, and whoever looks."""

import random
import threading

import pytest

from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.policy.link_state import LinkState
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.transport.http import HttpTransport
from services.conftest import actions


@pytest.fixture
def link():
    return Link(LinkSettings(url="http://o.test", token="t"), "w1", HttpTransport("http://o.test", user_agent="test"))


def test_after_any_race_of_a_registration_and_a_break_the_link_is_either_ready_or_broken(link, switching_often):
    both = threading.Barrier(2)
    wrong = set()

    def main_loop():
        chance = random.Random(1)
        for _ in range(3_000):
            both.wait()
            for _ in range(chance.randrange(3)):
                pass
            link.contact_broken()
            both.wait()

    thread = threading.Thread(target=main_loop)
    thread.start()
    for _ in range(3_000):
        both.wait()
        link.registered("1.0b17")
        both.wait()
        ready, broken = link.ready.is_open, link.broken.is_open
        if (ready, broken) != (link.state is LinkState.REGISTERED, link.state is LinkState.CONNECTING):
            wrong.add((link.state, ready, broken))
    thread.join()
    assert not wrong


def test_a_call_from_before_the_last_registration_breaks_nothing(link):
    link.registered("1.0b17")
    made_before = link.registrations
    link.registered("1.0b17")
    link.contact_broken(made_before)
    assert link.state is LinkState.REGISTERED
    link.contact_broken(link.registrations)
    assert link.state is LinkState.CONNECTING


@pytest.mark.parametrize("first", ["drain", "break"])
def test_a_link_that_drains_is_never_ready_and_a_break_of_it_is_seen(link, first):
    link.registered("1.0b17")
    for step in (link.drain, link.contact_broken) if first == "drain" else (link.contact_broken, link.drain):
        step()
    assert (link.state, link.ready.is_open, link.broken.is_open) == (LinkState.DRAINING, False, True)
    link.registered("1.0b17")
    assert (link.state, link.ready.is_open, link.broken.is_open) == (LinkState.DRAINING, False, False)


async def test_an_unknown_version_is_reported_whenever_an_orchestrator_begins_to_speak_it(link, caplog):
    link.registered("1.0b99")
    link.registered("1.0b99")
    assert len(actions(caplog, "protocol_version_unknown")) == 1
    link.registered("1.0b17")
    link._learn(Response(200, {"x-rxon-version": "1.0b99"}, b""), 0.0)  # noqa: SLF001 - what an answer brings
    link.registered("1.0b99")
    assert len(actions(caplog, "protocol_version_unknown")) == 2
