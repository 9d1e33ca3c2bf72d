"""The commands of the page make the certificates that its Python names."""

import subprocess
from pathlib import Path

import pytest

from docs.blocks import blocks_of
from needs import program, why_missing


def before():
    if program("openssl") is None:
        pytest.skip(why_missing("openssl"))
    script = next(block for block in blocks_of("docs/howto/mtls.md") if block.language == "bash")
    subprocess.run(["bash", "-eu", "-c", script.text], check=True, capture_output=True)
    return {}


def after(names):
    text = subprocess.run(
        ["openssl", "verify", "-CAfile", "ca.pem", "worker.pem"], check=True, capture_output=True, text=True
    ).stdout
    assert "OK" in text
    assert Path("worker-key.pem").stat().st_mode & 0o077 == 0
    assert names["worker"].load_settings({}).tls_cert_path == Path("worker.pem")
