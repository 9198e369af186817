"""Manifests read and checked."""

import functools
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
VERSION = "1.34"
"""Of Kubernetes, whose schemas the manifests are checked with; all that they use is stable in it."""


def check(resource: dict[str, Any]) -> None:
    """Raise where Kubernetes does not know a key or value of one of its own resources."""
    kubernetes_validate.validate(resource, VERSION, strict=True)


@functools.cache
def documents(path: Path) -> tuple[dict[str, Any], ...]:
    """The resources in a YAML file."""
    return tuple(document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document)


def manifests() -> list[Path]:
    """All files below cluster/ that hold resources."""
    return [
        path
        for path in sorted(CLUSTER.rglob("*.yaml"))
        if all("kind" in document for document in documents(path)) and documents(path)
    ]


def resources() -> list[tuple[Path, dict[str, Any]]]:
    """Each resource with its file."""
    return [(path, document) for path in manifests() for document in documents(path)]


def one(kind: str, folder: str) -> dict[str, Any]:
    """The only resource of a kind in a folder below cluster/."""
    (found,) = [resource for path, resource in resources() if resource["kind"] == kind and path.parent.name == folder]
    return found


def ray_clusters() -> dict[str, dict[str, Any]]:
    """What stands for a Ray cluster in the manifests, by file name."""
    keys = {"RayCluster": None, "RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}
    return {
        path.name: resource["spec"][key] if (key := keys[resource["kind"]]) else resource["spec"]
        for path, resource in resources()
        if resource["kind"] in keys
    }


def pods() -> dict[str, dict[str, Any]]:
    """The spec of every pod that the manifests make, by file and name."""
    found: dict[str, dict[str, Any]] = {}
    for name, cluster in ray_clusters().items():
        found[f"{name} head"] = cluster["headGroupSpec"]["template"]["spec"]
        for group in cluster["workerGroupSpecs"]:
            found[f"{name} {group['groupName']}"] = group["template"]["spec"]
    for path, resource in resources():
        if resource["kind"] in ("Deployment", "StatefulSet"):
            found[f"{path.name} {resource['metadata']['name']}"] = resource["spec"]["template"]["spec"]
    return found
