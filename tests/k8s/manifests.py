"""The rendered manifests, and the pods that controllers make of them."""

import copy
import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

Object = dict[str, Any]

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir() if folder.is_dir())
NAMESPACE = "rlcar"
RAY_KINDS = ("RayCluster", "RayJob", "RayService", "RayCronJob")
_NEEDS = "needs kubectl with kustomize 5 or later"


@functools.cache
def has_kustomize() -> bool:
    """Whether kubectl renders `replacements` and `patches`; Debian's kubectl 1.20 does not."""
    if shutil.which("kubectl") is None:
        return False
    answer = subprocess.run(
        ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True
    )
    version = json.loads(answer.stdout or "{}").get("kustomizeVersion", "v0")
    return int(re.sub(r"\D.*", "", version.removeprefix("v")) or 0) >= 5


needs_kustomize = pytest.mark.skipif(not has_kustomize(), reason=_NEEDS)


def _rendered(overlay: str) -> str:
    done = subprocess.run(
        ["kubectl", "kustomize", str(K8S / "overlays" / overlay)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return done.stdout


@functools.cache
def rendered(overlay: str) -> list[Object]:
    """Returns the objects of an overlay, as `kubectl apply -k` sends them; do not change them."""
    if not has_kustomize():
        pytest.skip(_NEEDS)
    return list(yaml.load_all(_rendered(overlay), yaml.CSafeLoader))


def name_of(document: Object) -> str:
    """Returns kind and name, for messages."""
    return f"{document['kind']} {document['metadata']['name']}"


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Returns the objects of a kind."""
    return [document for document in objects if document["kind"] == kind]


class Pod(NamedTuple):
    """A pod as its controller makes it."""

    owner: str
    role: str  # head, worker, submitter, or pod
    labels: dict[str, str]
    spec: Object


def pods(objects: list[Object]) -> Iterator[Pod]:
    """Yields the pods of all objects, with what KubeRay adds to them."""
    for document in objects:
        kind, spec, owner = document["kind"], document.get("spec", {}), name_of(document)
        if kind in ("Job", "Deployment", "StatefulSet"):
            yield _plain_pod(owner, spec["template"])
        elif kind == "CronJob":
            yield _plain_pod(owner, spec["jobTemplate"]["spec"]["template"])
        elif kind == "RayCluster":
            yield from _ray_pods(owner, spec)
        elif kind == "RayService":
            yield from _ray_pods(owner, spec["rayClusterConfig"])
        elif kind == "RayJob":
            yield from _ray_job_pods(owner, spec)
        elif kind == "RayCronJob":
            yield from _ray_job_pods(owner, spec["jobTemplate"])


def _plain_pod(owner: str, template: Object) -> Pod:
    return Pod(owner, "pod", template["metadata"]["labels"], template["spec"])


def _ray_job_pods(owner: str, spec: Object) -> Iterator[Pod]:
    nodes = list(_ray_pods(owner, spec["rayClusterSpec"]))
    # What KubeRay uses where the manifest says nothing: a container without a security context.
    default = {"containers": [{"name": "ray-job-submitter", "image": "rlcar"}]}
    if spec.get("submissionMode") == "SidecarMode":
        nodes[0].spec["containers"].extend(default["containers"])
    elif spec.get("submissionMode", "K8sJobMode") == "K8sJobMode":
        template = spec.get("submitterPodTemplate", {"metadata": {}, "spec": default})
        labels = template.get("metadata", {}).get("labels", {})
        yield Pod(owner, "submitter", labels, template["spec"])
    yield from nodes


def _ray_pods(owner: str, spec: Object) -> Iterator[Pod]:
    head = spec["headGroupSpec"]
    pod = copy.deepcopy(head["template"]["spec"])
    if spec.get("enableInTreeAutoscaling"):
        options = spec.get("autoscalerOptions", {})
        added = {"name": "autoscaler", "image": "rlcar"}
        for field in ("securityContext", "volumeMounts", "env", "resources"):
            if field in options:
                added[field] = options[field]
        pod["containers"].append(added)
    yield Pod(owner, "head", _ray_labels(head, "head", "headgroup"), pod)
    for group in spec.get("workerGroupSpecs", []):
        pod = copy.deepcopy(group["template"]["spec"])
        waits = {"name": "wait-gcs-ready", "image": "rlcar"}
        for field in ("securityContext", "volumeMounts"):
            if field in pod["containers"][0]:
                waits[field] = pod["containers"][0][field]
        pod.setdefault("initContainers", []).append(waits)
        labels = _ray_labels(group, "worker", group["groupName"])
        yield Pod(f"{owner}, group {group['groupName']}", "worker", labels, pod)


def _ray_labels(group: Object, node_type: str, name: str) -> dict[str, str]:
    own = group["template"].get("metadata", {}).get("labels", {}) | group.get("labels", {})
    return {
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
        "ray.io/is-ray-node": "yes",
        **own,
        "ray.io/cluster": "generated",
        "ray.io/node-type": node_type,
        "ray.io/group": name,
    }
