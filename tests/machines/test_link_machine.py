"""The link to one orchestrator: its state and gates, its tokens, its clock, against a model of what each answer means.

Calls come from both loops, and their answers in any order.
"""

import itertools
from email.utils import formatdate

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from avtomatika_worker.errors import WorkerError
from avtomatika_worker.link.clock import NOISE
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.link.token_renewal import TokenRenewal
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.policy.link_state import LinkState
from avtomatika_worker.protocol import dialects, replies
from avtomatika_worker.protocol.codec import REFRESH_PATH, TOKEN_HEADER
from avtomatika_worker.protocol.messages import Event, Heartbeat, TaskResult, WorkerStatus
from machines.stage import START, Stage, Wire, run_machine
from machines.test_lease_machine import REGISTRATION

VERSIONS = ("1.0b11", "1.0b17")
CONFIGURED = "configured"
NOT_ABOUT_THE_MESSAGE = {"poll", "heartbeat", "register"}
"""Calls whose 500 means that contact is lost."""


class LinkMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**16), grants=st.booleans(), is_registered=st.booleans())
    def begin(self, seed, grants, is_registered):
        self.stage = stage = Stage(seed)
        self.wire = Wire(stage, self.on_call, lambda call: self.breaks_contact(call.registrations))
        settings = LinkSettings(url="http://o.test", token=CONFIGURED, calls=BackoffPolicy(0.5, 4.0, 5.0))
        self.link = Link(settings, "w1", self.wire, world=stage.world)
        self.link.open()
        self.contact, self.draining, self.closed = "new", False, False
        self.sure = True
        self.registrations = self.breaks = 0
        self.announced = self.date = None
        self.age = 0.0
        self.version, self.ahead = VERSIONS[0], 0.0
        self.grants, self.lives = grants, None
        self.valid, self.refreshing = {CONFIGURED}, {}
        self.numbers = itertools.count()
        self.work, self.sent = [], {}
        self.healing = False
        self.renewal = stage.begin(stage.link, TokenRenewal(self.link).run())
        if is_registered:
            self.a_registration_is_sent()
            self.answer(self.wire.in_flight[0], "well")
            stage.settle()

    # ------------------------------------------------------------------------------------------- the model

    @property
    def state(self):
        if self.closed:
            return LinkState.CLOSED
        if self.draining:
            return LinkState.DRAINING
        return LinkState.REGISTERED if self.contact == "registered" else LinkState.CONNECTING

    def breaks_contact(self, made_after=None):
        """Note that contact is lost, unless the worker has registered since."""
        if self.closed or made_after not in {None, self.registrations}:
            return
        if self.state is LinkState.REGISTERED:
            self.breaks += 1
        self.contact = "broken"

    def learn_what_is_not_sure(self):
        """Take the link's word for the state of contact, until the next registration settles it."""
        if not self.sure:
            self.breaks = self.link.breaks
            self.contact = "broken" if self.link.broken.is_open else "registered" if self.registrations else "new"

    def is_accepted(self):
        self.registrations += 1
        if not self.closed:
            self.contact = "registered"
        self.sure = True

    # ------------------------------------------------------------------------------------------- the orchestrator

    def on_call(self, call):
        assert not self.closed or self.link.state is LinkState.CLOSED
        call.registrations = self.link.registrations
        call.token = call.headers[TOKEN_HEADER]
        if call.kind in {"register", "other"}:
            assert call.token == CONFIGURED
        if call.path == REFRESH_PATH:
            others = [each for each in self.wire.in_flight if each is not call and each.path == REFRESH_PATH]
            assert not others, "two renewals at once, with a token that may be used once"
        if self.healing:
            self.answer(call, "well")

    def answer(self, call, how):
        self.learn_what_is_not_sure()
        age = self.stage.time() - call.at
        if how == "lost":
            self.breaks_contact(call.registrations)
            call.fail()
            return
        status = {"well": 200, "malformed": 200}.get(how) or int(how)
        if how == "well" and call.token not in self.valid:
            status = 401
        body = self.body(call, how, status)
        headers = {"date": formatdate(START + self.stage.time() + self.ahead, usegmt=True)}
        if how == "503":
            headers = {"x-rxon-version": None}  # a proxy's: it says neither the version nor the orchestrator's time
        else:
            self.learns(headers["date"], age)
        if status > 500 or (status == 500 and call.kind in NOT_ABOUT_THE_MESSAGE):
            self.breaks_contact(call.registrations)
        if status == 401 or call.kind == "other":
            self.sure = False  # whether that breaks contact depends on when others have renewed the token
        if call.kind == "register" and how == "well":
            self.announced = self.version
            self.is_accepted()
        call.answer(status, body, **{"x-rxon-version": self.version, **headers})

    def learns(self, date, age):
        """Note what every answer of the orchestrator's own says: its version, and its time, once a second."""
        if self.announced not in {None, self.version}:
            self.announced = self.version
            self.breaks_contact()
        self.age = age if date != self.date else max(self.age, age)
        self.date = date

    def body(self, call, how, status):
        if status != 200 or how == "malformed":
            return {}
        if call.kind == "register":
            return {"status": "registered", "version": self.version, **self.tokens()}
        if call.path == REFRESH_PATH:
            refresh = call.body["refresh_token"]
            self.valid -= self.refreshing.pop(refresh, set())
            return self.tokens(always=True)
        return {"status": "ok"} if call.kind == "heartbeat" else None

    def tokens(self, always=False):
        if not self.grants and not always:
            return {}
        number = next(self.numbers)
        access, refresh = f"access-{number}", f"refresh-{number}"
        self.valid.add(access)
        self.refreshing[refresh] = {access}
        lives = {} if self.lives is None else {"expires_in": self.lives}
        return {"access_token": access, "refresh_token": refresh, **lives}

    # ------------------------------------------------------------------------------------------- what happens

    @rule(seconds=st.sampled_from([0.01, 0.7, 3.0, 20.0, 100.0]))
    def time_passes(self, seconds):
        self.stage.settle(seconds)

    @precondition(lambda self: not self.closed)
    @rule()
    def a_registration_is_sent(self):
        self.make(self.stage.link, self.register())

    async def register(self):
        link = self.link
        request = link.codec.register(REGISTRATION, dialects.NEUTRAL, link.now())
        response = await link.call(request, breaks_on_500=True, configured_token=True)
        reply = replies.decode_registration(response)
        link.registered(reply.version, reply.tokens, announced=response.from_orchestrator)

    @precondition(lambda self: not self.closed)
    @rule(kind=st.sampled_from(["poll", "heartbeat", "result", "event"]))
    def a_call_is_made(self, kind):
        link = self.link
        ids = {"worker_id": "w1", "origin_worker_id": "w1"}
        heartbeat = Heartbeat(worker_id="w1", status=WorkerStatus.IDLE, skills_hash="h")
        self.make(
            self.stage.link if kind == "heartbeat" else self.stage.main,
            {
                "poll": lambda: link.poll(("echo",), ()),
                "heartbeat": lambda: link.ask(
                    lambda: link.codec.heartbeat(heartbeat, link.dialect, link.now()), breaks_on_500=True
                ),
                "result": lambda: link.send_result(TaskResult(job_id="j", task_id="t", status="success", **ids)),
                "event": lambda: link.send_event(Event(event_id="e", event_type="note", payload={}, **ids)),
            }[kind](),
        )

    def make(self, loop, call):
        self.work.append(self.stage.begin(loop, call))

    @precondition(lambda self: self.wire.in_flight)
    @rule(
        data=st.data(),
        how=st.sampled_from(
            ["well", "well", "well", "well", "401", "403", "404", "429", "500", "503", "malformed", "lost"]
        ),
    )
    def the_orchestrator_answers(self, data, how):
        call = self.wire.in_flight[data.draw(st.integers(0, len(self.wire.in_flight) - 1))]
        self.answer(call, how)
        self.stage.settle()
        if how not in {"lost", "503"} and self.announced is not None:
            self.clocks_agree()

    @rule(version=st.sampled_from(VERSIONS))
    def the_orchestrator_is_replaced(self, version):
        self.version = version
        self.valid = {CONFIGURED}
        self.refreshing.clear()

    @rule(grants=st.booleans(), lives=st.sampled_from([None, 1, 10, 600]))
    def the_orchestrator_grants_tokens(self, grants, lives):
        self.grants, self.lives = grants, lives

    @rule(seconds=st.sampled_from([-7200.0, -5.0, 5.0, 7200.0]))
    def its_clock_is_set(self, seconds):
        self.ahead += seconds

    @rule(seconds=st.sampled_from([-7200.0, 5.0, 7200.0]))
    def this_machines_clock_is_set(self, seconds):
        before = self.link.now()
        self.stage.wall_ahead += seconds
        assert self.link.now() == before

    @rule()
    def contact_is_found_broken(self):
        self.breaks_contact()
        self.stage.call(self.stage.main, self.link.contact_broken)

    @rule(sure=st.sampled_from([True, False, False]))
    def it_drains(self, sure):
        if sure:
            self.draining = True
            self.stage.call(self.stage.main, self.link.drain)

    # ------------------------------------------------------------------------------------------- what holds

    def clocks_agree(self):
        """After an answer, the orchestrator's time is known as well as the call's duration allows."""
        error = abs(self.link.now() - (START + self.stage.time() + self.ahead))
        assert error <= self.age + 1 + NOISE, f"the clock is {error} s off after a call of {self.age} s"

    @invariant()
    def state_and_gates_are_as_the_answers_say(self):
        link = self.link
        assert link.ready.is_open == (link.state is LinkState.REGISTERED)
        assert link.known.is_open == (self.registrations > 0)
        assert link.registrations == self.registrations
        self.learn_what_is_not_sure()
        assert link.state is self.state
        assert link.broken.is_open == (self.contact == "broken")
        assert link.breaks == self.breaks

    @invariant()
    def calls_end_with_errors_of_ours_only(self):
        for work in self.work:
            if work.done() and (error := work.exception()) is not None:
                assert isinstance(error, WorkerError)
                assert error.__cause__ is None or isinstance(error.__cause__, WorkerError)
        self.work = [each for each in self.work if not each.done()]

    def teardown(self):
        if not hasattr(self, "stage"):
            return
        try:
            self.all_calls_end()
        finally:
            self.renewal.cancel()
            self.stage.settle()
            self.stage.end_life()
            self.stage.drop()

    def all_calls_end(self):
        """Let the orchestrator answer well again: every call ends, and after a registration the next one succeeds."""
        self.healing = True
        while self.wire.in_flight:
            self.answer(self.wire.in_flight[0], "well")
            self.stage.settle()
        self.stage.settle(200.0)
        self.calls_end_with_errors_of_ours_only()
        assert not self.work
        assert not self.wire.in_flight
        self.a_registration_is_sent()
        self.a_call_is_made("heartbeat")
        self.stage.settle(1.0)
        assert [each.result().status for each in self.work[1:]] == [200]
        self.state_and_gates_are_as_the_answers_say()


@pytest.mark.timeout(600)  # a failure is made small first
def test_a_link_is_what_the_answers_make_of_it():
    run_machine(LinkMachine, examples=60, steps=40)
