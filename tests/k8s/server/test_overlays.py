"""A real API server and the KubeRay operator accept every overlay, and its workloads start."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubernetes.kubectl import (
    K8S,
    Namespace,
    render,
    serves,
)

pytestmark = pytest.mark.kubernetes
Json = dict[str, Any]
OVERLAYS = [
    K8S / "base",
    *sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml")),
]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_the_server_accepts_an_overlay_and_its_workloads_start(
    overlay: Path, space: Namespace, tmp_path: Path
) -> None:
    objects = render(overlay, space.name, tmp_path / "rendered")
    _skip_without_kinds(objects)
    space.remember(objects)
    space.apply([found for found in objects if found["kind"] == "Namespace"])
    space.apply(objects, "--dry-run=server")
    space.apply(objects)
    for found in objects:
        _check_start(space, found)
    # A job that was suspended for Kueue has been resumed.
    objects = [found for found in objects if not found.get("spec", {}).get("suspend")]
    before = space.wait("rest", lambda: _generations_at_rest(space, objects))
    # Neither the operator nor another controller owns or has changed a field of the overlay.
    space.apply(objects)
    assert _generations(space, objects) == before
    assert space.warnings() == []


@pytest.mark.parametrize(
    ("first", "second"),
    [("cpu-small", "cpu-small-serve"), ("job", "serve"), ("cron", "monitoring")],
)
def test_overlays_can_follow_each_other(
    first: str, second: str, space: Namespace, tmp_path: Path
) -> None:
    for name in (first, second):
        objects = render(K8S / "overlays" / name, space.name, tmp_path / name)
        _skip_without_kinds(objects)
        space.remember(objects)
        space.apply(objects)


def _check_start(space: Namespace, found: Json) -> None:
    kind, name = found["kind"], found["metadata"]["name"]
    if kind == "RayJob":
        if found["spec"].get("suspend"):
            _wait_for_state(space, name, "Suspended")
            # What Kueue does when the queue has room.
            patch = '{"spec": {"suspend": false}}'
            space.kubectl("patch", "rayjob", name, "--type", "merge", "--patch", patch)
        status = _wait_for_state(space, name, "Running")
        _wait_for_cluster(space, status["rayClusterName"])
        labels = f"batch.kubernetes.io/job-name={name}"
        if found["spec"].get("submissionMode", "K8sJobMode") == "K8sJobMode":
            space.wait(f"the submitter of {name}", lambda: _are_running(space, labels))
    elif kind == "RayCluster":
        _wait_for_cluster(space, name)
    elif kind == "RayService":
        cluster = space.wait(f"the cluster of RayService {name}", lambda: _service(space, name))
        _wait_for_cluster(space, cluster)
    elif kind in ("Deployment", "StatefulSet"):
        wanted = found["spec"].get("replicas", 1)
        space.wait(
            f"{kind} {name}",
            lambda: space.get(kind, name).get("status", {}).get("readyReplicas", 0) >= wanted,
        )
    elif kind == "Job":
        labels = f"batch.kubernetes.io/job-name={name}"
        space.wait(f"the pods of Job {name}", lambda: _are_running(space, labels))
    elif kind == "PersistentVolumeClaim":
        space.wait(
            f"the volume of {name}",
            lambda: space.get("pvc", name)["status"]["phase"] == "Bound",
        )
    elif kind == "HorizontalPodAutoscaler":
        least = found["spec"]["minReplicas"]
        space.wait(
            f"the replicas of {name}",
            lambda: space.get("hpa", name)["status"].get("currentReplicas", 0) >= least,
        )
    elif kind == "CronJob":
        _check_cron_job(space, found)
    elif kind == "RayCronJob":
        # The operator creates this job at the given time, if its feature gate is on.
        _check_ray_job(space, f"{name}-now", found["spec"]["jobTemplate"])


def _check_ray_job(space: Namespace, name: str, spec: Json) -> None:
    metadata = {"name": name, "namespace": space.name}
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}
    space.apply([job])
    _check_start(space, job)
    space.kubectl("delete", "rayjob", name)


def _check_cron_job(space: Namespace, found: Json) -> None:
    """A run of the template passes admission: quota, limits and Pod Security."""
    name = f"{found['metadata']['name']}-now"
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": space.name},
        "spec": found["spec"]["jobTemplate"]["spec"],
    }
    space.apply([job])
    labels = f"batch.kubernetes.io/job-name={name}"
    space.wait(
        f"the pod of CronJob {found['metadata']['name']}", lambda: _are_running(space, labels)
    )
    space.kubectl("delete", "job", name, "--wait=false")


def _wait_for_state(space: Namespace, name: str, state: str) -> Json:
    def status() -> Json | None:
        found = space.get("rayjob", name).get("status", {})
        reason = f"{found.get('reason')}: {found.get('message')}"
        assert found.get("jobDeploymentStatus") not in ("ValidationFailed", "Failed"), reason
        return dict(found) if found.get("jobDeploymentStatus") == state else None

    return dict(space.wait(f"state {state} of RayJob {name}", status))


def _wait_for_cluster(space: Namespace, name: str) -> None:
    def is_ready() -> bool:
        # The operator announces a cluster before it creates it.
        status = space.find("raycluster", name).get("status", {})
        held = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
        return status.get("state") == "ready" and held >= {"HeadPodReady", "RayClusterProvisioned"}

    space.wait(f"RayCluster {name}", is_ready)
    spec, status = space.get("raycluster", name)["spec"], space.get("raycluster", name)["status"]
    wanted = sum(group.get("replicas", 0) for group in spec.get("workerGroupSpecs", []))
    assert status.get("readyWorkerReplicas", 0) == wanted


def _service(space: Namespace, name: str) -> str:
    status = space.get("rayservice", name).get("status", {})
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        if cluster := status.get(part, {}).get("rayClusterName"):
            return str(cluster)
    return ""


def _are_running(space: Namespace, labels: str) -> bool:
    pods = space.list_all("pods", labels)
    return bool(pods) and all(pod["status"]["phase"] in ("Running", "Succeeded") for pod in pods)


def _skip_without_kinds(objects: list[Json]) -> None:
    for version, kind in sorted({(found["apiVersion"], found["kind"]) for found in objects}):
        if not serves(version, kind):
            pytest.skip(f"the cluster does not know {kind} of {version}")


def _generations_at_rest(space: Namespace, objects: list[Json]) -> dict[str, int | None] | None:
    """Returns the generations, or None while controllers still complete the objects."""
    before = _generations(space, objects)
    time.sleep(2.0)
    return before if _generations(space, objects) == before else None


def _generations(space: Namespace, objects: list[Json]) -> dict[str, int | None]:
    """Returns how often the desired state of each object has changed."""
    names = [f"{found['kind']}/{found['metadata']['name']}" for found in objects]
    return {name: space.get(*name.split("/"))["metadata"].get("generation") for name in names}
