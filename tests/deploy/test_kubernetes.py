"""deploy/kubernetes is valid, and agrees with itself and with the worker."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from avtomatika_worker.observability.metrics import METRICS
from deploy.manifests import default, kustomized, longest_shutdown, manifest, settings
from generate_docs import prometheus_name
from needs import needs

VARIANTS = ("base", "gpu")
VERSIONS = ("1.29", "1.37")
"""The oldest version of Kubernetes that is tried, and the newest that there is a schema for."""


@functools.cache
def rendered(variant: str) -> dict[str, dict[str, Any]]:
    """Kind → the variant's object of that kind; each has one."""
    documents = kustomized(variant)
    objects = {document["kind"]: document for document in documents}
    assert len(objects) == len(documents)
    return objects


def pod(variant: str) -> dict[str, Any]:
    return rendered(variant)["Deployment"]["spec"]["template"]


def container(variant: str) -> dict[str, Any]:
    (only,) = pod(variant)["spec"]["containers"]
    return only


def port_of(reference: int | str, variant: str) -> int:
    ports = {port["name"]: port["containerPort"] for port in container(variant)["ports"]}
    return reference if isinstance(reference, int) else ports[reference]


def validate(document: dict[str, Any], version: str) -> None:
    import kubernetes_validate  # of a dependency group that need not be installed

    kubernetes_validate.validate(document, version, strict=True)


@needs("kubernetes_validate")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_kustomize_makes_is_valid_by_kubernetes_schemas(variant, version):
    kinds = {kind for kind in rendered(variant) if kind != "ScaledObject"}
    assert kinds == {"ConfigMap", "Deployment", "PodDisruptionBudget", "NetworkPolicy"}
    for kind in kinds:
        validate(rendered(variant)[kind], version)


@needs("kubernetes_validate")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_autoscaler_that_keda_would_make_is_valid(variant):
    spec = rendered(variant)["ScaledObject"]["spec"]
    (trigger,) = spec["triggers"]
    metric = {"metric": {"name": "s0"}, "target": {"type": trigger["metricType"], "averageValue": "1"}}
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "keda"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", **spec["scaleTargetRef"]},
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "metrics": [{"type": "External", "external": metric}],
            **spec["advanced"]["horizontalPodAutoscalerConfig"],
        },
    }
    validate(autoscaler, VERSIONS[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_selects_the_pods_of_its_own_variant(variant):
    objects, labels = rendered(variant), pod(variant)["metadata"]["labels"]
    others = [pod(other)["metadata"]["labels"] for other in VARIANTS if other != variant]
    selectors = [
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in others)
    assert objects["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_grace_period_holds_the_pre_stop_hook_and_the_longest_shutdown(variant):
    timeout = float(rendered(variant)["ConfigMap"]["data"]["WORKER_SHUTDOWN_TIMEOUT"])
    command, seconds = container(variant)["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod(variant)["spec"]["terminationGracePeriodSeconds"] > int(seconds) + longest_shutdown(timeout)


@pytest.mark.parametrize("variant", VARIANTS)
def test_probes_ask_what_the_health_server_answers(variant):
    probes = {name: container(variant)[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == {
        "startupProbe": "/live",
        "livenessProbe": "/live",
        "readinessProbe": "/ready",
    }
    port = default("WORKER_PORT")
    assert {port_of(probe["httpGet"]["port"], variant) for probe in probes.values()} == {port}
    assert pod(variant)["metadata"]["annotations"]["prometheus.io/port"] == str(port)


@pytest.mark.parametrize("variant", VARIANTS)
def test_prometheus_may_fetch_metrics(variant):
    assert rendered(variant)["ConfigMap"]["data"]["WORKER_ENABLE_METRICS"] == "true"
    (rule,) = rendered(variant)["NetworkPolicy"]["spec"]["ingress"]
    assert [port_of(each["port"], variant) for each in rule["ports"]] == [8083]


@pytest.mark.parametrize("variant", VARIANTS)
def test_dns_and_orchestrators_are_within_reach_and_the_metadata_service_is_not(variant):
    rules = rendered(variant)["NetworkPolicy"]["spec"]["egress"]
    pods = [peer["podSelector"]["matchLabels"] for rule in rules for peer in rule["to"] if "podSelector" in peer]
    assert pods == [{"k8s-app": "kube-dns"}, {"app.kubernetes.io/name": "avtomatika-orchestrator"}]
    blocks = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]
    assert all("169.254.0.0/16" in block["except"] for block in blocks)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_setting_is_one_of_the_workers(variant):
    named = {*rendered(variant)["ConfigMap"]["data"], *(each["name"] for each in container(variant)["env"])}
    assert named <= settings()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_scaler_asks_for_a_metric_and_a_load_that_exist(variant):
    (trigger,) = rendered(variant)["ScaledObject"]["spec"]["triggers"]
    query, threshold = trigger["metadata"]["query"], float(trigger["metadata"]["threshold"])
    (metric,) = [each for each in METRICS if prometheus_name(each) in re.findall(r"\w+", query)]
    assert "state" in metric.labels
    assert re.search(r'\bstate="running"', query)
    slots = int(rendered(variant)["ConfigMap"]["data"]["MAX_CONCURRENT_TASKS"])
    assert 0.5 * slots <= threshold < slots  # at the threshold or above it the number would never grow


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_root_file_system_is_read_only_and_what_the_worker_writes_is_mounted(variant):
    security = container(variant)["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod(variant)["spec"]["securityContext"]["runAsNonRoot"]
    mounted = {mount["mountPath"] for mount in container(variant)["volumeMounts"]}
    assert mounted == {"/srv/worker/state", "/srv/worker/files", "/tmp"}


def test_a_gpu_worker_asks_for_a_gpu_and_gives_the_old_one_up_first():
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert rendered("gpu")["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_orchestrator_is_reached_by_https_and_its_tasks_are_verified(variant):
    assert rendered(variant)["ConfigMap"]["data"]["ORCHESTRATOR_URL"].startswith("https://")
    (key,) = [each for each in container(variant)["env"] if each["name"] == "ORCHESTRATOR_SECRET_KEY"]
    assert "optional" not in key["valueFrom"]["secretKeyRef"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_volumes_have_sizes_and_the_image_a_tag_that_is_not_moved(variant):
    assert all(volume["emptyDir"].get("sizeLimit") for volume in pod(variant)["spec"]["volumes"])
    tag = container(variant)["image"].rpartition(":")[2]
    assert tag not in {"latest", container(variant)["image"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_worker_writes_to_directories_of_its_own_in_the_volumes(variant):
    data = rendered(variant)["ConfigMap"]["data"]
    mounted = {each["mountPath"] for each in container(variant)["volumeMounts"]}
    for variable in ("TASK_FILES_DIR", "WORKER_STATE_DIR"):
        assert data[variable].rpartition("/")[0] in mounted


# Without kubectl: the manifests as they are written. The variant may change nothing of what is looked at here.


def written(name: str = "base") -> dict[str, Any]:
    """Return the pod's specification in a directory's deployment.yaml."""
    spec: dict[str, Any] = manifest(f"{name}/deployment.yaml")["spec"]["template"]["spec"]
    return spec


def test_pods_run_without_root_privileges_or_credentials_of_the_cluster():
    spec = written()
    assert spec["automountServiceAccountToken"] is False
    own = spec["securityContext"]
    assert own["runAsNonRoot"] is True
    assert own["runAsUser"] > 0
    assert own["runAsGroup"] > 0
    assert own["seccompProfile"] == {"type": "RuntimeDefault"}
    (only,) = spec["containers"]
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_pods_have_the_image_of_a_tag_or_a_digest_that_is_not_moved():
    for name in ("base", "gpu"):
        (image,) = manifest(f"{name}/kustomization.yaml")["images"]
        assert image["name"] == written()["containers"][0]["image"]
        assert image.get("digest") or image["newTag"] != "latest"


def test_every_volume_of_a_pod_has_a_size_and_memory_a_limit():
    spec = written()
    volumes = [volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"]]
    assert len(volumes) == len(spec["containers"][0]["volumeMounts"]) > 0
    assert spec["containers"][0]["resources"]["limits"]["memory"]


def test_secrets_come_from_a_secret_and_the_orchestrator_is_asked_by_https():
    (generated,) = manifest("base/kustomization.yaml")["configMapGenerator"]
    literals = dict(each.split("=", 1) for each in generated["literals"])
    assert literals["ORCHESTRATOR_URL"].startswith("https://")
    assert not any(re.search("TOKEN|SECRET|PASSWORD|KEY", name) for name in literals)
    env = {each["name"]: each for each in written()["containers"][0]["env"]}
    (source,) = env["ORCHESTRATOR_SECRET_KEY"]["valueFrom"].values()
    assert source == {"name": "worker-secrets", "key": "ORCHESTRATOR_SECRET_KEY"}
    assert not any("value" in each for each in env.values())


def test_the_variant_with_a_gpu_loosens_nothing():
    patch = written("gpu")
    assert patch.keys() == {"terminationGracePeriodSeconds", "tolerations", "containers"}
    assert [each.keys() for each in patch["containers"]] == [{"name", "resources"}]
    targets = [each["target"]["kind"] for each in manifest("gpu/kustomization.yaml")["patches"] if "target" in each]
    assert targets == ["ScaledObject"]
    (merged,) = manifest("gpu/kustomization.yaml")["configMapGenerator"]
    assert "ORCHESTRATOR_URL" not in "".join(merged["literals"])
