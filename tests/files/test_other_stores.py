"""Stores besides S3 with configured keys: other clouds, other servers, and keys that the machine hands out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from avtomatika_worker.files.store_settings import StoreSettings
from files.conftest import PART, QUICK, Bucket, FilesOfTasks
from files.front import Front, front
from files.npm import binary, free_port, served

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Both are public: every emulator of Azure's stores has them."""

MakeFiles = Callable[..., FilesOfTasks]


def settings(**options: object) -> StoreSettings:
    return StoreSettings(part_size=PART, backoff=QUICK, attempts=2, **options)  # type: ignore[arg-type]


async def round_trip(files: FilesOfTasks, prefix: str) -> None:
    """Store a small file, one of several parts and a directory; get all of them back by their URIs."""
    task = files.task()
    content = secrets.token_bytes(2 * PART + 1000)
    await task.write("small.txt", "hello")
    await task.write("large.bin", content)
    await task.write("tree/a/one.txt", "one")
    await task.write("tree/two words.txt", "two")
    assert await task.upload_file("small.txt") == f"{prefix}/job/task/small.txt"
    assert await task.upload_file("large.bin") == f"{prefix}/job/task/large.bin"
    tree = await task.upload_dir("tree")
    other = files.task("other")
    await other.download_file(f"{prefix}/job/task/small.txt", "small.txt")
    await other.download_file(f"{prefix}/job/task/large.bin", "large.bin")
    await other.download_file(tree, "tree")
    assert await other.read("small.txt") == "hello"
    assert await other.read("large.bin", "rb") == content
    assert await other.read("tree/a/one.txt") == "one"
    assert await other.read("tree/two words.txt") == "two"


# --------------------------------------------------------------------------------------------------- other clouds


@pytest.fixture
def google(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """Google's store is configured by its own variables; its XML API is S3's."""
    with front(bucket.server.url, signed=True) as server:
        account = tmp_path / "account.json"
        account_facts = {"gcs_base_url": server.url, "disable_oauth": True}
        account.write_text(json.dumps({**account_facts, "client_email": "", "private_key": "", "private_key_id": ""}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
        yield server


async def test_gs_uris_are_read_and_written(
    google: Front, bucket: Bucket, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    await round_trip(make_files(settings(default_bucket=f"gs://{bucket.name}")), f"gs://{bucket.name}")
    assert any(line.startswith("PUT") for line in google.requests)


@pytest.mark.usefixtures("google")
async def test_plain_http_is_spoken_to_no_cloud_unless_it_is_allowed(bucket: Bucket, make_files: MakeFiles):
    task = make_files(settings(default_bucket=f"gs://{bucket.name}")).task()
    await task.write("a.txt", "a")
    with pytest.raises(Exception, match="gs://"):
        await task.upload_file("a.txt")


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Azure's own emulator of its store, with the container "box"."""
    command = binary("azurite", "3.35.0", "azurite-blob")
    port = free_port()
    place = tmp_path_factory.mktemp("azurite")
    flags = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with served([command, *flags, "--location", place, "--blobPort", str(port)], port):
        _make_container(port, "box")
        yield f"http://127.0.0.1:{port}"


async def test_az_uris_are_read_and_written(azurite: str, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", azurite)
    await round_trip(make_files(settings(default_bucket="az://box")), "az://box")


def _make_container(port: int, name: str) -> None:
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    version = "2021-08-06"
    path = f"/{AZURE_ACCOUNT}/{name}"
    lines = ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{version}", f"/{AZURE_ACCOUNT}{path}"]
    text = "\n".join([*lines, "restype:container"])
    signature = base64.b64encode(hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256)).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {AZURE_ACCOUNT}:{signature}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("PUT", f"{path}?restype=container", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    connection.close()


# -------------------------------------------------------------------------------------------------- other servers


async def test_other_s3_servers_work_too(tmp_path: Path, make_files: MakeFiles):
    """s3rver, from npm; it checks signatures."""
    command = binary("s3rver", "3.7.1", "s3rver")
    port = free_port()
    place = ["--directory", tmp_path / "s3rver", "--address", "127.0.0.1", "--port", str(port)]
    with served([command, *place, "--configure-bucket", "box"], port):
        stores = settings(
            endpoint_url=f"http://127.0.0.1:{port}", access_key="S3RVER", secret_key="S3RVER", default_bucket="box"
        )
        await round_trip(make_files(stores), "s3://box")


# ---------------------------------------------------------------------------------------------- keys of the machine


async def test_without_keys_those_of_the_instance_s_role_are_used(
    bucket: Bucket, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
):
    until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = {"AccessKeyId": "ASIAROLE", "SecretAccessKey": "role-secret", "Token": "role-token", "Expiration": until}
    role = "/latest/meta-data/iam/security-credentials/"
    answers = {"/latest/api/token": "session", role: "worker-role", f"{role}worker-role": json.dumps(keys)}
    with front(bucket.server.url, answers) as server:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.url)
        files = make_files(settings(endpoint_url=server.url, default_bucket=bucket.name))
        await round_trip(files, f"s3://{bucket.name}")
    _used(server, "ASIAROLE", "role-token")


async def test_without_keys_a_web_identity_is_exchanged_for_some(
    bucket: Bucket, make_files: MakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = (
        "<AccessKeyId>ASIAWEB</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>web-token</SessionToken>"
    )
    result = f"<Credentials>{keys}<Expiration>{until}</Expiration></Credentials>"
    answer = f"<A><AssumeRoleWithWebIdentityResult>{result}</AssumeRoleWithWebIdentityResult></A>"
    token = tmp_path / "token"
    token.write_text("identity-of-the-pod")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with front(bucket.server.url, {"/sts": answer}, tls=tls) as server:  # tokens go over TLS only
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/worker")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"{server.url}/sts")
        stores = settings(endpoint_url=server.url, default_bucket=bucket.name, ca_path=tmp_path / "ca.pem")
        await round_trip(make_files(stores), f"s3://{bucket.name}")
    assert any("identity-of-the-pod" in line for line in server.requests)
    _used(server, "ASIAWEB", "web-token")


def _used(server: Front, key: str, token: str) -> None:
    stored = [headers for headers in server.headers if "x-amz-date" in headers]
    assert stored
    assert all(f"Credential={key}/" in headers["authorization"] for headers in stored)
    assert {headers["x-amz-security-token"] for headers in stored} == {token}
