"""TLS files that cannot be used are reported before anything starts."""

from pathlib import Path

import pytest

from avtomatika_worker import ConfigError, Worker
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.transport.tls import TlsFiles

DATA = Path(__file__).parent.parent / "data" / "tls"
CERT, KEY, TEXT = DATA / "cert.pem", DATA / "key.pem", Path(__file__)


def test_good_files_are_taken_by_both_libraries():
    files = TlsFiles(ca=CERT, cert=CERT, key=KEY)
    assert files.problems() == []
    assert files.ssl_context().get_ca_certs()
    HttpTransport("https://127.0.0.1", user_agent="test", tls=files).open()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (TlsFiles(ca=TEXT), "TLS_CA_PATH="),
        (TlsFiles(ca=KEY), "TLS_CA_PATH="),
        (TlsFiles(cert=TEXT, key=TEXT), "TLS_CERT_PATH="),
        (TlsFiles(cert=CERT, key=DATA / "other-key.pem"), "key values mismatch"),
        (TlsFiles(cert=CERT, key=DATA / "encrypted-key.pem"), "the key is encrypted"),
    ],
    ids=lambda each: str(each)[-40:],
)
def test_each_problem_names_its_setting(files, said):
    (problem,) = files.problems()
    assert said in problem


async def test_a_worker_with_wrong_files_does_not_start():
    worker = Worker()
    settings = worker.load_settings({"TLS_CA_PATH": str(TEXT), "TLS_CERT_PATH": str(TEXT), "TLS_KEY_PATH": str(TEXT)})
    with pytest.raises(ConfigError) as caught:
        await worker.main(settings, health_check=False)
    assert len(caught.value.problems) == 2
