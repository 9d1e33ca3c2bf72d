"""The settings for checkpoints and preemption, and what is made of them."""

import base64

import pytest

from avtomatika_worker import ConfigError, Worker
from avtomatika_worker.config import load_settings
from avtomatika_worker.monitoring.clouds import AwsNotices, AzureNotices, GcpNotices
from avtomatika_worker.monitoring.notices import FileNotices
from avtomatika_worker.worker.make_notices import make_notices, sources_of

KEY = bytes(range(32))


@pytest.mark.parametrize("text", [KEY.hex(), KEY.hex().upper(), base64.b64encode(KEY).decode()])
def test_a_key_is_hexadecimal_or_base64_and_shown_nowhere(text):
    settings = load_settings({"CHECKPOINT_KEY": text})
    assert settings.checkpoint_key == text
    assert text not in repr(settings)


@pytest.mark.parametrize("text", ["secret", "ab" * 31, "zz" * 32, base64.b64encode(b"short").decode()])
def test_anything_but_a_key_of_32_bytes_is_refused_without_being_shown(text):
    with pytest.raises(ConfigError, match=r"CHECKPOINT_KEY.*32 random bytes") as caught:
        load_settings({"CHECKPOINT_KEY": text})
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("aws", [AwsNotices]),
        ("gcp, azure", [GcpNotices, AzureNotices]),
        ("file:/run/drain,sigterm", [FileNotices]),
        ("sigterm", []),
    ],
)
def test_each_source_of_notices_is_waited_for_and_sigterm_comes_by_itself(text, kinds):
    settings = load_settings({"WORKER_PREEMPTION": text})
    assert [type(each) for each in sources_of(settings)] == kinds
    assert (make_notices(settings) is None) is (not kinds)


@pytest.mark.parametrize("text", ["ibm", "file:", "aws;gcp", "AWS"])
def test_an_unknown_source_is_refused_with_the_known_ones(text):
    with pytest.raises(ConfigError, match=r"WORKER_PREEMPTION.*aws, gcp, azure, sigterm and file:PATH"):
        load_settings({"WORKER_PREEMPTION": text})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CHECKPOINT_INTERVAL", "-1"), ("CHECKPOINT_MAX_AGE", "0"), ("CHECKPOINT_MAX_BYTES", "10")],
)
def test_figures_have_bounds(variable, value):
    with pytest.raises(ConfigError, match=variable):
        load_settings({variable: value})


async def test_a_key_without_the_library_keeps_the_worker_from_starting(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    worker = Worker()
    settings = worker.load_settings({"CHECKPOINT_KEY": KEY.hex(), "ORCHESTRATOR_URL": "http://127.0.0.1:1"})
    with pytest.raises(
        ConfigError, match=r"CHECKPOINT_KEY is set, but encryption needs cryptography; install the extra"
    ):
        await worker.main(settings, health_check=False)
