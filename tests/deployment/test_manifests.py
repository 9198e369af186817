"""What lies in cluster/ is what Kubernetes, KubeRay and Serve read, and keeps to our own rules."""

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from onmodel.core.errors import UserError
from onmodel.serving.serve_config import check_serve_config, read_serve_config

from .kubernetes import CLUSTER, ROOT, check, documents, manifests, one, pods, ray_clusters, resources
from .resources import CUSTOM

PRODUCTION = CLUSTER / "serve.production.yaml"
OTHERS = {"serve.yaml", "serve.production.yaml", "envoy.yaml", "rules.test.yaml"}
"""YAML that is no resource; each has a test of its own."""


def test_every_yaml_file_is_looked_at() -> None:
    looked_at = {path.name for path in manifests()} | OTHERS
    assert {path.name for path in CLUSTER.rglob("*.yaml")} == looked_at


@pytest.mark.parametrize(
    ("path", "resource"), [pytest.param(p, r, id=f"{p.parent.name}/{p.name} {r['kind']}") for p, r in resources()]
)
def test_every_resource_has_known_keys_and_values(path: Path, resource: dict[str, Any]) -> None:
    model = CUSTOM.get(resource["kind"])
    if model is None:
        check(resource)
    else:
        model.model_validate(resource)


def changed(resource: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with something else at `place`, a path of keys and indices."""
    copied = copy.deepcopy(resource)
    inner: Any = copied
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in path:
        inner = inner[part]
    inner[last] = value
    return copied


CONTAINER = "workerGroupSpecs.0.template.spec.containers.0"


@pytest.mark.parametrize(
    ("kind", "folder", "place", "value"),
    [
        ("RayCluster", "training", "spec.authOption", {}),
        ("RayCluster", "training", "spec.authOptions.mode", "tokens"),
        ("RayCluster", "training", "spec.gcsFaultToleranceOptions.redisPassword", {"value": "secret"}),
        ("RayCluster", "training", "spec.workerGroupSpecs.0.maxReplica", 3),
        ("RayCluster", "training", "spec.workerGroupSpecs.0.minReplicas", 9),
        ("RayCluster", "training", f"spec.{CONTAINER}.resource", {}),
        ("RayCluster", "training", f"spec.{CONTAINER}.ports.0.containerPort", "8080"),
        ("RayService", "serving", "spec.serveConfig", ""),
        ("RayService", "serving", "spec.serveService.spec.clusterIp", "None"),
        ("PrometheusRule", "monitoring", "spec.groups.1.rules.0.label", {}),
    ],
)
def test_mistakes_are_found(kind: str, folder: str, place: str, value: Any) -> None:
    resource = one(kind, folder)
    CUSTOM[kind].model_validate(resource)
    with pytest.raises((ValidationError, kubernetes_validate.ValidationError)):
        CUSTOM[kind].model_validate(changed(resource, place, value))


def test_kustomizations_name_what_is_there_and_leave_nothing_out() -> None:
    for path, resource in resources():
        if resource["kind"] != "Kustomization":
            continue
        named = [*resource["resources"], *(f for made in resource.get("configMapGenerator", []) for f in made["files"])]
        for name in named:
            assert (path.parent / name).exists(), f"{path}: {name}"
        apart = {"kustomization.yaml", "rules.test.yaml"} | {p.name for p in path.parent.glob("*-job.yaml")}
        assert {p.name for p in path.parent.glob("*.yaml")} - apart <= set(named)


def test_the_service_runs_the_production_config() -> None:
    text = one("RayService", "serving")["spec"]["serveConfigV2"]
    assert yaml.safe_load(text) == yaml.safe_load(PRODUCTION.read_text(encoding="utf-8"))


def test_the_production_config_is_whole_and_bounded() -> None:
    config = read_serve_config(PRODUCTION)
    assert config["grpc_options"]["enable_reflection"] is False
    timeout_s = config["grpc_options"]["request_timeout_s"]
    assert config["logging_config"]["encoding"] == "JSON"
    assert {app["name"] for app in config["applications"]} == {"detection", "scoring"}
    for app in config["applications"]:
        for deployment in app["deployments"]:
            scaling = deployment["autoscaling_config"]
            assert 1 <= scaling["min_replicas"] <= scaling["max_replicas"]
            # Beyond what a replica is scaled for there is room in it, and in the queue, before anything is refused.
            assert scaling["target_ongoing_requests"] < deployment["max_ongoing_requests"]
            assert 0 < deployment["max_queued_requests"] <= 1024
            assert 0 < deployment["graceful_shutdown_timeout_s"] <= timeout_s
            assert deployment["health_check_timeout_s"] > 0
    with pytest.raises(UserError, match="did you mean `max_replicas`"):
        check_serve_config(changed(config, "applications.0.deployments.0.autoscaling_config.max_replica", 3), "x")


def test_replicas_fit_the_workers_that_are_meant_for_them() -> None:
    service = one("RayService", "serving")["spec"]
    groups = {group["groupName"]: group for group in service["rayClusterConfig"]["workerGroupSpecs"]}
    for app in yaml.safe_load(service["serveConfigV2"])["applications"]:
        (deployment,) = app["deployments"]
        group = groups[app["name"]]
        (container,) = group["template"]["spec"]["containers"]
        limits, wanted = container["resources"]["limits"], deployment["ray_actor_options"]
        assert wanted["num_cpus"] <= int(limits["cpu"])
        assert wanted.get("num_gpus", 0) <= int(limits.get("nvidia.com/gpu", 0))
        assert deployment["autoscaling_config"]["max_replicas"] <= group["maxReplicas"]
        # Replicas are given their time before the pod is ended.
        assert deployment["graceful_shutdown_timeout_s"] < group["template"]["spec"]["terminationGracePeriodSeconds"]


def pinned(package: str) -> str:
    (found,) = re.findall(rf"^{package}==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return found


@pytest.mark.parametrize(("name", "cluster"), ray_clusters().items(), ids=list(ray_clusters()))
def test_every_ray_cluster_is_locked_and_its_head_does_no_work(name: str, cluster: dict[str, Any]) -> None:
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["enableInTreeAutoscaling"] is True and cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert not any("gpu" in key for key in head["resources"]["limits"])
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    assert ports["metrics"] == 8080
    assert ("serve-grpc" in ports) == (name == "ray-service.yaml")
    # What lives for months survives its head; a job's cluster lives as long as the job.
    assert ("gcsFaultToleranceOptions" in cluster) == (not name.endswith("-job.yaml"))


def test_serving_and_training_are_apart() -> None:
    spaces = {path.parent.name: resource["namespace"] for path, resource in resources() if "namespace" in resource}
    assert spaces["serving"] != spaces["training"]


@pytest.mark.parametrize(("name", "pod"), pods().items(), ids=list(pods()))
def test_no_pod_runs_as_root_or_takes_more_than_it_is_given(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    # The head's autoscaler alone speaks with the Kubernetes API.
    assert name.endswith(" head") or pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert "memory" in container["resources"]["limits"] and "cpu" in container["resources"]["requests"]
        assert re.search(r":[a-z-]*v?\d+\.\d+\.\d+", container["image"]), "an image without a version"


def test_claims_and_mounts_belong_together() -> None:
    for path, resource in resources():
        folder = path.parent
        claims = {
            document["metadata"]["name"]: document["spec"]["accessModes"]
            for file in folder.glob("storage.yaml")
            for document in documents(file)
        }
        if resource["kind"] not in ("RayCluster", "RayService", "RayJob"):
            continue
        for name, pod in pods().items():
            if not name.startswith(path.name):
                continue
            volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
            mounts = [mount for container in pod["containers"] for mount in container.get("volumeMounts", [])]
            assert {mount["name"] for mount in mounts} == set(volumes)
            for mount in mounts:
                claim = volumes[mount["name"]].get("persistentVolumeClaim")
                if claim is not None and claims[claim["claimName"]] == ["ReadOnlyMany"]:
                    assert mount["readOnly"] is True and claim["readOnly"] is True


def policies(folder: str) -> dict[str, dict[str, Any]]:
    found = documents(CLUSTER / folder / "network-policy.yaml")
    return {document["metadata"]["name"]: document["spec"] for document in found}


@pytest.mark.parametrize("folder", ["serving", "training"])
def test_ray_ports_are_reached_by_ray_and_the_operator_alone(folder: str) -> None:
    allowed = policies(folder)
    # Everything that is not allowed by another is closed, for every pod and both ways.
    assert allowed["nothing-else"]["podSelector"] == {} and "ingress" not in allowed["nothing-else"]
    assert set(allowed["nothing-else"]["policyTypes"]) == {"Ingress", "Egress"}
    inside = [{"podSelector": {"matchExpressions": [{"key": "ray.io/cluster", "operator": "Exists"}]}}]
    for rule in allowed["ray"]["ingress"]:
        # A rule without `from` would let in everybody, one without `ports` every port.
        assert rule["from"]
        if rule["from"] != inside:
            ports = {port["port"] for port in rule["ports"]}
            assert ports <= {8000, 8080, 8265, 9000}
            assert 8265 not in ports or len(rule["from"]) == 1
    if folder == "serving":
        (to_grpc,) = [
            rule for rule in allowed["ray"]["ingress"] if {"protocol": "TCP", "port": 9000} in rule.get("ports", [])
        ]
        assert to_grpc["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "onmodel-gateway"}}}]
        (to_gateway,) = [rule for rule in allowed["gateway"]["ingress"] if "from" not in rule]
        assert to_gateway["ports"] == [{"protocol": "TCP", "port": 8443}]


def test_policies_monitors_and_services_select_pods_that_exist() -> None:
    labels = [
        resource["spec"]["template"]["metadata"]["labels"]
        for _, resource in resources()
        if resource["kind"] in ("Deployment", "StatefulSet")
    ]
    # Those are made by others, under these names.
    labels += [{"app.kubernetes.io/name": name} for name in ("kuberay-operator", "prometheus")]
    labels += [{"ray.io/node-type": "head"}]

    def selectors(value: Any) -> list[dict[str, str]]:
        if isinstance(value, list):
            return [found for item in value for found in selectors(item)]
        if not isinstance(value, dict):
            return []
        own = [value["matchLabels"]] if "matchLabels" in value else []
        return own + [found for inner in value.values() for found in selectors(inner)]

    for path, resource in resources():
        for wanted in selectors(resource.get("spec", {})):
            assert any(wanted.items() <= have.items() for have in labels), f"{path}: {wanted}"


@pytest.mark.parametrize("path", sorted((CLUSTER / "training").glob("*-job.yaml")), ids=lambda path: path.name)
def test_jobs_run_a_verb_that_there_is(path: Path) -> None:
    import shlex

    from onmodel.cli.main import load_verb

    (job,) = documents(path)
    _, _, script = shlex.split(job["spec"]["entrypoint"])
    line = script.split("&&")[-1].split()
    assert line[0] == "onmodel"
    load_verb(line[1]).make_context(line[1], line[2:]).close()


def test_secrets_are_named_and_never_written() -> None:
    for path in CLUSTER.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert "PRIVATE KEY" not in text and "eyJ" not in text
    assert not any(resource["kind"] == "Secret" for _, resource in resources())
    told = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    named = {name for path in manifests() for name in re.findall(r"secretName: (\S+)", path.read_text())}
    named |= {ref for path in manifests() for ref in re.findall(r"secretKeyRef:\s+name: (\S+)", path.read_text())}
    assert named and all(
        f"create secret {kind} {name}" in told for name in named for kind in ["tls" if "tls" in name else "generic"]
    )
