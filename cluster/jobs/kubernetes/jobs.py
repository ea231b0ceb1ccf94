"""Jobs on Kubernetes: submit, list, find, scale, stop and delete them."""

import datetime
import time
from collections.abc import Callable
from typing import Any

from cluster.jobs.kubernetes import status
from cluster.jobs.kubernetes.api import Api
from cluster.jobs.kubernetes.manifest import (
    QUEUE_LABEL,
    SIMULATORS,
    SUBMISSION_ANNOTATION,
    find_group,
)
from cluster.jobs.kubernetes.paths import PODS, RAY_CLUSTERS, RAY_JOBS
from cluster.jobs.kubernetes.refusals import FIELD_MANAGER, RefusedError, owners_of
from rlcar.errors import UserError, command
from rlcar.settings.explain import nearest

Json = dict[str, Any]
_LABELS = "app.kubernetes.io/part-of=rlcar"
_MOST_CONFLICTS = 5
_STOP_MARGIN_S = 60.0
_POLL_S = 1.0


def create(api: Api, job: Json, *, dry_run: bool = False) -> Json:
    """Creates a RayJob; raises UserError with the reason if the API refuses it."""
    try:
        return api.create(RAY_JOBS, job, dry_run=dry_run)
    except RefusedError as error:
        if error.reason != "AlreadyExists" or dry_run:
            raise
        # The answer to the first attempt may have been lost.
        name = job["metadata"]["name"]
        there = api.get(RAY_JOBS, name, job["metadata"]["namespace"])
        if _submission(there) != _submission(job):
            raise
        return there


def apply(api: Api, job: Json, *, force: bool = False, dry_run: bool = False) -> Json:
    """Creates or changes a RayJob by server-side apply."""
    try:
        return api.apply(RAY_JOBS, job, force=force, dry_run=dry_run)
    except RefusedError as error:
        # The API counts what `create` and `scale` have set as another manager of the same name.
        if set(owners_of(error.status)) != {FIELD_MANAGER}:
            raise
        return api.apply(RAY_JOBS, job, force=True, dry_run=dry_run)


def list_jobs(api: Api, *, everywhere: bool = False) -> list[status.JobRow]:
    """Returns the jobs of rlcar, oldest first."""
    found = api.list_all(RAY_JOBS, everywhere=everywhere, labels=_LABELS)["items"]
    now = datetime.datetime.now(datetime.UTC)
    return sorted((status.row_of(job, now) for job in found), key=lambda row: row.started)


def find_job(api: Api, name: str) -> Json:
    """Returns one job; raises UserError, with the most similar name, for an unknown one."""
    try:
        return api.get(RAY_JOBS, name)
    except RefusedError as error:
        if error.code != 404 or not error.status.details.get("name"):
            raise
    known = [row.job for row in list_jobs(api)]
    hint = nearest(name, known) if known else "; it has no jobs"
    raise UserError(f"namespace {api.namespace} has no job {name!r}{hint}")


def pods_of(api: Api, job: Json) -> list[Json]:
    """Returns the pods of a job's Ray cluster."""
    cluster = (job.get("status") or {}).get("rayClusterName")
    if not cluster:
        return []
    return list(api.list_all(PODS, labels=status.cluster_labels(cluster))["items"])


def cluster_of(api: Api, job: Json) -> Json | None:
    """Returns the RayCluster of a job; None if there is none at present."""
    cluster = (job.get("status") or {}).get("rayClusterName")
    if not cluster:
        return None
    try:
        return api.get(RAY_CLUSTERS, cluster)
    except RefusedError as error:
        if error.code == 404:
            return None
        raise


def scale(api: Api, name: str, workers: int) -> int:
    """Changes the number of worker pods that run simulators; returns the number before.

    KubeRay ignores changes of a RayJob after it has created its RayCluster, and a further try
    begins with what the RayJob says. Therefore both objects are changed.
    """
    for attempt in range(_MOST_CONFLICTS):
        job = find_job(api, name)
        _check_scalable(api, job)
        try:
            before = _scale(api, RAY_JOBS, job, ("spec", "rayClusterSpec"), workers)
            if cluster := cluster_of(api, job):
                before = _scale(api, RAY_CLUSTERS, cluster, ("spec",), workers)
        except RefusedError as error:
            if error.code != 409 or attempt + 1 == _MOST_CONFLICTS:
                raise
            time.sleep(_POLL_S)  # someone else has changed the object since it was read
            continue
        return before
    raise AssertionError("unreachable")


def _scale(api: Api, resource: Any, owner: Json, path: tuple[str, ...], workers: int) -> int:
    cluster = owner
    for word in path:
        cluster = cluster[word]
    group = find_group(cluster, SIMULATORS)
    index = cluster["workerGroupSpecs"].index(group)
    at = f"/{'/'.join(path)}/workerGroupSpecs/{index}"
    before = int(group.get("replicas") or 0)
    operations = [
        # The API refuses the patch with 409 if the object is no longer the one that was read.
        {
            "op": "replace",
            "path": "/metadata/resourceVersion",
            "value": owner["metadata"]["resourceVersion"],
        },
        {"op": "add", "path": f"{at}/replicas", "value": workers},
    ]
    # KubeRay keeps the number between these two, which have no other use without its autoscaler.
    if workers < int(group.get("minReplicas") or 0):
        operations.append({"op": "add", "path": f"{at}/minReplicas", "value": workers})
    if "maxReplicas" in group and workers > int(group["maxReplicas"]):
        operations.append({"op": "add", "path": f"{at}/maxReplicas", "value": workers})
    api.patch(resource, owner["metadata"]["name"], operations)
    return before


def _check_scalable(api: Api, job: Json) -> None:
    name = job["metadata"]["name"]
    if status.is_over(job):
        raise UserError(
            f"{name} has ended ({status.state_of(job)}): submit it again with --workers"
        )
    if job["metadata"].get("deletionTimestamp"):
        raise UserError(f"{name} is being stopped: submit it again with --workers")
    queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    if queue:
        raise UserError(
            f"Kueue has reserved quota in queue {queue} for a fixed number of pods of {name}: stop "
            "the job, and submit it again with --workers; it continues from its checkpoint"
        )
    if job["spec"]["rayClusterSpec"].get("enableInTreeAutoscaling"):
        raise UserError(
            f"Ray's autoscaler sets the number of workers of {name} and would undo the change: "
            "change minReplicas and maxReplicas of the RayCluster instead"
        )


def stop(api: Api, name: str, say: Callable[[str], None]) -> None:
    """Deletes a running job gracefully, and waits until its pods have ended.

    KubeRay first tells Ray to stop the driver. It then deletes the Ray cluster, whose pods give
    the driver time for its last checkpoint.
    """
    job = find_job(api, name)
    if status.is_over(job):
        say(f"{name} has ended before ({status.state_of(job)})")
        return
    pods = pods_of(api, job)
    api.delete(RAY_JOBS, name)
    grace_s = max((_grace_s(pod) for pod in pods), default=0.0)
    if pods:
        say(f"{name} is stopping; its {len(pods)} pods may take {grace_s:.0f} s to save and end")
    cluster = (job.get("status") or {}).get("rayClusterName") or ""
    end_s = time.monotonic() + grace_s + _STOP_MARGIN_S
    while _is_left(api, name, cluster):
        if time.monotonic() > end_s:
            raise UserError(
                f"{name} was deleted, but its pods have not ended after "
                f"{grace_s + _STOP_MARGIN_S:.0f} s: see kubectl get pods --namespace "
                f"{api.namespace} --selector {status.cluster_labels(cluster)}"
            )
        time.sleep(_POLL_S)


def delete(api: Api, name: str) -> None:
    """Deletes a job that has ended, with its pods and logs; raises UserError for another one."""
    job = find_job(api, name)
    is_refused = status.state_of(job) in ("created", "queued", "suspended")
    if not status.is_over(job) and not is_refused:
        words = command("jobs", "stop", name, "--kubernetes", "--namespace", api.namespace)
        raise UserError(
            f"{name} has not ended ({status.state_of(job)}): end it first with: {words}"
        )
    api.delete(RAY_JOBS, name)


def _is_left(api: Api, name: str, cluster: str) -> bool:
    try:
        api.get(RAY_JOBS, name)
        return True
    except RefusedError as error:
        if error.code != 404:
            raise
    return bool(cluster and api.list_all(PODS, labels=status.cluster_labels(cluster))["items"])


def _grace_s(pod: Json) -> float:
    return float((pod.get("spec") or {}).get("terminationGracePeriodSeconds") or 30)


def _submission(job: Json) -> str | None:
    annotations = (job.get("metadata") or {}).get("annotations") or {}
    found: str | None = annotations.get(SUBMISSION_ANNOTATION)
    return found
