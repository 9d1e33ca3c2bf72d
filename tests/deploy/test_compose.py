"""compose.yaml is valid, and the same system as `make cluster`."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import system
from deploy.manifests import DEPLOY, compose, default, longest_shutdown, settings
from needs import needs

SERVICES = compose()["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker-")}
ENGINES = {name: service for name, service in SERVICES.items() if name.startswith("orchestrator-")}


@needs("check_jsonschema")
def test_it_is_valid_by_the_schema_of_compose():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(DEPLOY / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)  # only the first run needs them: it installs the orchestrator
def test_it_has_as_many_orchestrators_and_workers_as_make_cluster(tmp_path):
    cluster = system.Cluster(tmp_path)
    assert len(ENGINES) == len(cluster.engines) == 2
    assert len(WORKERS) == len(cluster.workers) == 3


@pytest.mark.parametrize("name", ENGINES)
def test_orchestrators_are_set_up_as_in_make_cluster(name):
    assert system.ENGINE_SETTINGS.items() <= ENGINES[name]["environment"].items()


@pytest.mark.parametrize("name", WORKERS)
def test_workers_are_set_up_as_in_make_cluster(name):
    assert system.WORKER_SETTINGS.items() <= WORKERS[name]["environment"].items()


def test_members_have_names_and_volumes_of_their_own():
    ids = [service["environment"]["WORKER_ID"] for service in WORKERS.values()]
    instances = [service["environment"]["INSTANCE_ID"] for service in ENGINES.values()]
    volumes = [volume for service in WORKERS.values() for volume in service["volumes"]]
    for names in (ids, instances, volumes):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("name", WORKERS)
def test_workers_are_given_only_settings_that_exist(name):
    assert WORKERS[name]["environment"].keys() <= settings()


@pytest.mark.parametrize("name", WORKERS)
def test_workers_know_every_orchestrator(name):
    orchestrators = json.loads(WORKERS[name]["environment"]["ORCHESTRATORS_CONFIG"])
    assert {each["url"] for each in orchestrators} == {f"http://{engine}:8080" for engine in ENGINES}


@pytest.mark.parametrize("name", WORKERS)
def test_workers_have_the_time_that_a_shutdown_takes(name):
    timeout = default("WORKER_SHUTDOWN_TIMEOUT")
    assert int(WORKERS[name]["stop_grace_period"].removesuffix("s")) > longest_shutdown(timeout)


def test_the_token_of_workers_and_the_keys_of_the_store_are_those_of_the_other_side():
    minio, bucket = SERVICES["minio"]["environment"], SERVICES["bucket"]
    for worker in WORKERS.values():
        env = worker["environment"]
        assert {env["WORKER_TOKEN"]} == {each["environment"]["GLOBAL_WORKER_TOKEN"] for each in ENGINES.values()}
        keys = env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"]
        assert keys == (minio["MINIO_ROOT_USER"], minio["MINIO_ROOT_PASSWORD"])
        assert bucket["environment"]["MC_HOST_store"] == f"http://{keys[0]}:{keys[1]}@minio:9000"
        assert bucket["entrypoint"][-1] == f"store/{env['S3_DEFAULT_BUCKET']}"


def test_every_file_that_is_mounted_is_there():
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    paths = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert paths
    assert [path for path in paths if not (DEPLOY / path).exists()] == []


def test_prometheus_fetches_from_every_worker():
    text = (DEPLOY / "prometheus" / "prometheus.yaml").read_text()
    assert set(re.findall(r'"([\w-]+):8083"', text)) == WORKERS.keys()


@needs("promtool")
def test_promtool_accepts_prometheus_configuration(tmp_path: Path):
    for name in ("prometheus.yaml", "alerts.yaml"):
        shutil.copy(DEPLOY / "prometheus" / name, tmp_path)
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [*WORKERS, *ENGINES])
def test_what_we_build_runs_without_privileges_on_a_read_only_root(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]


def test_images_have_tags_other_than_latest_and_ports_are_local():
    for service in SERVICES.values():
        if "build" not in service:
            assert re.fullmatch(r"[\w./-]+:[\w.-]+", service["image"])
            assert not service["image"].endswith(":latest")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
