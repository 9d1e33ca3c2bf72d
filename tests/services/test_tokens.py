"""Configured tokens and their fallback, access and refresh tokens, the clock: against orchestrators that insist."""

import asyncio
import json
import logging

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.devserver.faults import Fault
from avtomatika_worker.link.credentials import Credentials
from avtomatika_worker.protocol.messages import TokenReply
from services.conftest import actions, running


@pytest.fixture
def echo(worker):
    @worker.skill
    async def echo(text: str) -> dict[str, str]:
        return {"text": text}


async def done(orchestrator, timeout=10):
    """Have a job done; return its state."""
    job = orchestrator.submit("echo", {"text": "x"})
    await orchestrator.wait_for(lambda: job.state.final, timeout)
    return job.state.value


def calls(orchestrator, call, *, path=""):
    return [each for each in orchestrator.requests if each.call == call and each.path.endswith(path)]


async def started_at(port, **options):
    orchestrator = EmbeddedOrchestrator(port=port, poll_time=0.2, **options)
    await orchestrator.start()
    return orchestrator


# ------------------------------------------------------------------------------------------------- granted tokens


async def test_access_tokens_are_renewed_before_they_expire(worker, echo, caplog):
    async with EmbeddedOrchestrator(poll_time=0.2, issue_tokens=True, token_lifetime=1.0) as orchestrator:
        async with running(worker, orchestrator, heartbeat_interval=0.2):
            await orchestrator.wait_for(lambda: len(calls(orchestrator, "token", path="/refresh")) >= 3)
            assert await done(orchestrator) == "finished"
        assert [each.status for each in calls(orchestrator, "token")][:3] == [200] * 3
        assert all(each.status != 401 for each in orchestrator.requests)
        assert len(calls(orchestrator, "register")) == 1
        assert not orchestrator.problems


@pytest.mark.parametrize("brought", [None, TokenReply(access_token="late", refresh_token="r3")], ids=["none", "some"])
async def test_a_renewal_does_not_replace_what_a_registration_has_brought_meanwhile(brought):
    tokens = Credentials("configured")
    tokens.granted(TokenReply(access_token="first", refresh_token="r1"))

    async def exchange():
        tokens.granted(TokenReply(access_token="of the registration", refresh_token="r2"))
        return brought

    assert await tokens.renew("first", exchange)
    assert (tokens.current, tokens.refresh_token) == ("of the registration", "r2")


@pytest.mark.parametrize("status", [401, 403])  # up to 1.0b21, and from 1.0b22 on
async def test_a_worker_whose_access_token_is_refused_renews_it_and_the_call_goes_through(worker, echo, status):
    async with EmbeddedOrchestrator(poll_time=5.0, issue_tokens=True) as orchestrator:
        async with running(worker, orchestrator, heartbeat_interval=60.0):
            for call in ("poll", "result"):
                orchestrator.inject(Fault(call, "status", status=status))
                assert await done(orchestrator) == "finished"
        assert len(calls(orchestrator, "token", path="/refresh")) >= 1


@pytest.mark.parametrize("status", [401, 403])  # up to 1.0b21, and from 1.0b22 on
async def test_an_orchestrator_that_forgot_a_good_access_token_is_registered_at_again(worker, echo, status):
    """It was replaced, perhaps between two calls, and has lost the worker, too."""
    async with (
        EmbeddedOrchestrator(poll_time=5.0, issue_tokens=True) as orchestrator,
        running(worker, orchestrator, heartbeat_interval=0.2, registration_retry_initial_delay=0.1),
    ):
        orchestrator.inject(Fault("heartbeat", "status", status=status))
        await orchestrator.wait_for(lambda: len(calls(orchestrator, "register")) == 2)
        assert await done(orchestrator) == "finished"


async def test_tokens_that_cannot_be_refreshed_are_replaced_by_registering(worker, echo):
    async with EmbeddedOrchestrator(poll_time=0.2, issue_tokens=True, token_lifetime=0.8) as orchestrator:
        orchestrator.inject(Fault("token", "status", status=401, times=1))
        async with running(worker, orchestrator, heartbeat_interval=0.2):
            await orchestrator.wait_for(lambda: len(calls(orchestrator, "register")) >= 2)
            assert await done(orchestrator) == "finished"
        assert not orchestrator.problems


async def test_renewal_is_tried_again_when_the_network_fails(worker, echo, caplog):
    async with EmbeddedOrchestrator(poll_time=0.2, issue_tokens=True, token_lifetime=0.8) as orchestrator:
        orchestrator.inject(Fault("token", "status", status=503, times=2))
        async with running(worker, orchestrator):
            await orchestrator.wait_for(lambda: [e.status for e in calls(orchestrator, "token")][:3] == [503, 503, 200])
            assert await done(orchestrator) == "finished"
    assert actions(caplog, "token_not_renewed")


async def test_a_restarted_orchestrator_that_forgot_all_tokens_gets_its_worker_back(worker, echo):
    async with EmbeddedOrchestrator(poll_time=0.2, issue_tokens=True) as orchestrator:
        async with running(worker, orchestrator, heartbeat_interval=0.2):
            await orchestrator.stop()
            orchestrator.forget_workers()
            await orchestrator.start()
            await orchestrator.wait_for_worker("w1")
            assert await done(orchestrator) == "finished"
        assert not orchestrator.problems


async def test_an_orchestrator_that_no_longer_grants_tokens_is_served_with_the_configured_one(worker, echo):
    first = await started_at(0, issue_tokens=True)
    async with running(worker, first, heartbeat_interval=0.2):
        await first.stop()
        second = await started_at(first.port)
        await second.wait_for_worker("w1")
        assert await done(second) == "finished"
        await worker.shutdown()
        await second.stop()


async def test_messages_are_signed_with_the_configured_token_whatever_the_header_carries(worker, echo):
    async with EmbeddedOrchestrator(poll_time=0.2, issue_tokens=True) as orchestrator:
        async with running(worker, orchestrator):
            assert await done(orchestrator) == "finished"
        assert calls(orchestrator, "result")[-1].status == 200  # it verifies with its own token, and wants the granted


@pytest.mark.parametrize("status", [401, 403])  # up to 1.0b21, and from 1.0b22 on
async def test_the_commands_websocket_renews_a_refused_token(worker, echo, status):
    async with EmbeddedOrchestrator(poll_time=0.2, issue_tokens=True) as orchestrator:
        orchestrator.inject(Fault("ws", "status", status=status))
        async with running(worker, orchestrator, heartbeat_interval=60.0):
            await orchestrator.wait_for(lambda: [e.status for e in calls(orchestrator, "ws")] == [status, 101])
        assert len(calls(orchestrator, "token", path="/refresh")) == 1


@pytest.mark.parametrize("token", ["a\nb", "ü", "x" * 9000, " "], ids=ascii)
async def test_a_granted_token_that_no_header_can_carry_is_not_sent(worker, echo, token):
    async with EmbeddedOrchestrator(poll_time=0.2) as orchestrator:
        reply = {"status": "registered", "version": orchestrator.version, "access_token": token}
        orchestrator.inject(Fault("register", "body", body=json.dumps(reply).encode()))
        async with running(worker, orchestrator):
            assert await done(orchestrator) == "finished"


async def test_no_token_is_in_the_log(worker, echo, caplog):
    caplog.set_level(logging.DEBUG)
    async with (
        EmbeddedOrchestrator(poll_time=0.2, issue_tokens=True, token_lifetime=0.8, token="s3cr3t") as orchestrator,
        running(worker, orchestrator, token_fallback="f4llb4ck"),
    ):
        await orchestrator.wait_for(lambda: calls(orchestrator, "token", path="/refresh"))
        granted = [json.loads(each.reply) for each in calls(orchestrator, "token")]
    for secret in ["s3cr3t", "f4llb4ck", *(each["access_token"] for each in granted)]:
        assert secret not in caplog.text


# ------------------------------------------------------------------------------------------------- two keys at a time


async def test_the_fallback_is_used_when_the_token_is_refused_and_the_log_says_so(worker, echo, caplog):
    async with EmbeddedOrchestrator(poll_time=0.2, token="new") as orchestrator:
        async with running(worker, orchestrator, token="old", token_fallback="new"):
            assert await done(orchestrator) == "finished"
        assert [each.status for each in calls(orchestrator, "register")][:2] == [403, 200]
    (switch,) = actions(caplog, "token_switched")
    assert "WORKER_TOKEN_FALLBACK" in switch


async def test_a_token_that_is_changed_while_the_worker_runs_costs_no_restart_and_no_job(worker, caplog):
    go_on, started = asyncio.Event(), asyncio.Event()

    @worker.skill
    async def echo(text: str) -> dict[str, str]:
        started.set()
        await go_on.wait()
        return {"text": text}

    first = await started_at(0, token="old")
    async with running(worker, first, token="old", token_fallback="new", heartbeat_interval=0.2):
        job = first.submit("echo", {"text": "x"})
        await started.wait()
        await first.stop()
        second = await started_at(first.port, token="new")
        second.submit("echo", {"text": "y"}, job_id=job.job_id)
        await second.wait_for_worker("w1")
        go_on.set()
        delivered = await second.wait_for(lambda: [e for e in calls(second, "result") if e.status == 200])
        assert json.loads(delivered[0].body)["job_id"] == job.job_id
        await second.stop()
        third = await started_at(first.port, token="old")  # and back again
        await third.wait_for_worker("w1")
        assert await done(third) == "finished"
        await worker.shutdown()
        await third.stop()
    assert len(actions(caplog, "token_switched")) == 2


async def test_with_both_tokens_refused_the_worker_goes_on_trying_both(worker, caplog):
    async with EmbeddedOrchestrator(poll_time=0.2, token="right") as orchestrator:
        settings = {"ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": "a", "WORKER_TOKEN_FALLBACK": "b"}
        main = asyncio.create_task(
            worker.main(
                worker.load_settings({**settings, "REGISTRATION_RETRY_INITIAL_DELAY": "0.01"}), health_check=False
            )
        )
        await orchestrator.wait_for(lambda: len(calls(orchestrator, "register")) >= 4)
        await worker.shutdown()
        await main
    assert not actions(caplog, "token_switched")
    assert "WORKER_TOKEN, or its fallback" in actions(caplog, "registration_failed")[0]


async def test_each_orchestrator_has_a_token_and_a_fallback_of_its_own(worker, echo):
    async with (
        EmbeddedOrchestrator(poll_time=0.2, token="token-of-a") as a,
        EmbeddedOrchestrator(poll_time=0.2, token="new-of-b") as b,
    ):
        a_token, b_tokens = {"token": "token-of-a"}, {"token": "old-of-b", "token_fallback": "new-of-b"}
        listed = json.dumps([{"url": a.url, **a_token}, {"url": b.url, **b_tokens}])
        async with running(worker, a, orchestrators_config=listed, token_fallback="never-for-a"):
            await b.wait_for_worker("w1")
            assert [await done(each) for each in (a, b)] == ["finished", "finished"]
        assert [each.status for each in calls(a, "register")] == [200]


# ------------------------------------------------------------------------------------------------- the clock


@pytest.mark.parametrize("offset", [-3600, 90, 3600])
async def test_a_clock_that_differs_is_corrected_from_the_first_answer_on_and_reported_once(
    worker, echo, caplog, offset
):
    async with EmbeddedOrchestrator(poll_time=0.2) as orchestrator:
        orchestrator.clock_offset = offset
        async with running(
            worker,
            orchestrator,
            heartbeat_interval=0.2,
            registration_retry_initial_delay=30.0,
            registration_retry_max_delay=60.0,
        ):
            assert await done(orchestrator) == "finished"
            await orchestrator.wait_for(lambda: len(calls(orchestrator, "heartbeat")) > 2)
        assert [each.status for each in calls(orchestrator, "register")] == [403, 200]
    (warning,) = actions(caplog, "clock_differs")
    # An answer's date is in whole seconds, and was some time on its way.
    assert any(
        f"{abs(offset) + off} s {'behind' if offset > 0 else 'ahead of'}" in warning for off in (-2, -1, 0, 1, 2)
    )


async def test_a_clock_that_is_set_while_the_worker_runs_is_followed(worker, echo, caplog):
    async with (
        EmbeddedOrchestrator(poll_time=0.2) as orchestrator,
        running(worker, orchestrator, heartbeat_interval=0.2),
    ):
        assert await done(orchestrator) == "finished"
        assert not actions(caplog, "clock_differs")
        orchestrator.clock_offset = 45
        sent = orchestrator.workers["w1"]
        await orchestrator.wait_for(
            lambda: sent.last_heartbeat and abs(sent.last_heartbeat["timestamp"] - orchestrator.now()) < 5
        )
        assert await done(orchestrator) == "finished"
        sent = json.loads(calls(orchestrator, "result")[-1].body)["timestamp"]
        assert abs(sent - orchestrator.now()) < 5
    assert len(actions(caplog, "clock_differs")) == 1
