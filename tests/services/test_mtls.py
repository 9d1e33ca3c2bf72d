"""A worker and an orchestrator over TLS: mutual authentication, and certificates that are renewed while it runs."""

import json

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.link.tls_reload import TlsReload
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.http import HttpTransport
from certificates import Authority
from services.conftest import actions, running

PROTOCOL_THAT_WANTS_CERTIFICATES_FOR_TOKENS = "1.0b7"


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def echo(worker):
    @worker.skill
    async def echo(text: str) -> dict[str, str]:
        return {"text": text}


async def done(orchestrator):
    job = orchestrator.submit("echo", {"text": "x"})
    await orchestrator.wait_for(lambda: job.state.final)
    return job.state.value


def statuses(orchestrator, call):
    return [each.status for each in orchestrator.requests if each.call == call]


def tls_settings(files):
    return {"tls_ca_path": files.ca, "tls_cert_path": files.cert, "tls_key_path": files.key}


async def test_a_worker_shows_its_certificate_for_every_call_and_for_the_websocket(worker, echo, authority, tmp_path):
    files = authority.client_files(tmp_path, "w1")
    server = authority.server(clients=authority)
    async with EmbeddedOrchestrator(poll_time=0.2, tls=server) as orchestrator:
        async with running(worker, orchestrator, **tls_settings(files)):
            await orchestrator.wait_for(lambda: orchestrator.workers["w1"].connected)
            assert await done(orchestrator) == "finished"
        assert orchestrator.url.startswith("https://")
        assert not orchestrator.problems


async def test_a_certificate_of_another_worker_is_refused_and_the_log_says_why(
    worker, echo, authority, tmp_path, caplog
):
    files = authority.client_files(tmp_path, "w2")
    server = authority.server(clients=authority)
    async with EmbeddedOrchestrator(poll_time=0.2, tls=server) as orchestrator:
        with pytest.raises(TimeoutError):
            async with running(worker, orchestrator, up_within=0.5, **tls_settings(files)):
                pass
        assert not orchestrator.workers
    assert "the client certificate is w2's" in actions(caplog, "registration_failed")[0]


async def test_an_access_token_is_asked_for_with_the_certificate_and_renewed(worker, echo, authority, tmp_path):
    files = authority.client_files(tmp_path, "w1")
    version = PROTOCOL_THAT_WANTS_CERTIFICATES_FOR_TOKENS
    options = {"version": version, "token_lifetime": 3.0, "tls": authority.server(clients=authority)}
    async with EmbeddedOrchestrator(poll_time=0.2, **options) as orchestrator:
        async with running(worker, orchestrator, heartbeat_interval=0.2, **tls_settings(files)):
            await orchestrator.wait_for(lambda: statuses(orchestrator, "token")[2:])
            assert await done(orchestrator) == "finished"
        assert set(statuses(orchestrator, "token")) == {200}
        granted = [json.loads(each.reply) for each in orchestrator.requests if each.call == "token"]
        assert len({each["access_token"] for each in granted}) == len(granted)
        assert not orchestrator.problems


async def test_renewed_certificates_are_taken_without_a_restart(worker, echo, authority, tmp_path, caplog):
    files, successor = authority.client_files(tmp_path, "w1"), Authority()
    first = EmbeddedOrchestrator(poll_time=0.2, tls=authority.server(clients=authority))
    await first.start()
    settings = {"tls_reload_interval": 0.05, **tls_settings(files)}
    async with running(worker, first, heartbeat_interval=0.2, **settings):
        authority.write_ca(files.ca, successor)
        successor.write_client(tmp_path, "w1")
        await first.stop()
        second = EmbeddedOrchestrator(port=first.port, poll_time=0.2, tls=successor.server(clients=successor))
        await second.start()
        await second.wait_for_worker("w1")
        await second.wait_for(lambda: second.workers["w1"].connected)
        assert await done(second) == "finished"
        await worker.shutdown()
        await second.stop()
    assert actions(caplog, "tls_reloaded")


async def test_files_that_cannot_be_used_change_nothing_and_are_reported(authority, tmp_path, caplog):
    files = authority.client_files(tmp_path, "w1")
    server = authority.server(clients=authority)
    async with EmbeddedOrchestrator(tls=server) as orchestrator:
        transport = HttpTransport(orchestrator.url, user_agent="test", tls=files)
        link = Link(LinkSettings(orchestrator.url, orchestrator.token), "w1", transport)
        reload = TlsReload(files, [link], interval=1.0)
        link.open()
        whole = files.cert.read_bytes()
        files.cert.write_bytes(whole[:100])  # in the middle of being written
        for _ in range(2):
            reload.look()
            assert (await link.call(Request("GET", "/"))).status
        assert not actions(caplog, "tls_reloaded")
        authority.write_client(tmp_path, "w1")
        for _ in range(2):
            reload.look()
            assert (await link.call(Request("GET", "/"))).status
        assert len(actions(caplog, "tls_reloaded")) == 1
        await link.close()
    (reported,) = actions(caplog, "tls_not_reloaded")
    assert "TLS_CERT_PATH" in reported
