"""What the status of a RayJob and of its pods says, in words for people."""

import datetime
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from cluster.jobs.kubernetes.manifest import COMMAND_ANNOTATION, QUEUE_LABEL, SIMULATORS
from cluster.jobs.kubernetes.refusals import explain_admission

Json = dict[str, Any]
_BEFORE_SUSPENDED = ("", "Initializing", "Suspending")  # of a job that is created suspended
_ENDED = ("Complete", "Failed", "ValidationFailed")
_EXIT_CODE = re.compile(r"exit code:? (\d+)")
_IMAGE_REASONS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
_CONTAINER_REASONS = (
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
)
_SUBMITTER_LABEL = "batch.kubernetes.io/job-name"
_CLUSTER_LABEL = "ray.io/cluster"
STOPPED_EXIT_CODE = 130


class JobRow(NamedTuple):
    """One line of the list of jobs."""

    job: str
    namespace: str
    state: str
    started: str  # ISO 8601, in UTC
    seconds: float
    workers: int
    failed_tries: int
    command: str


def is_over(job: Json) -> bool:
    """Says whether KubeRay has finished with a job."""
    return _status(job).get("jobDeploymentStatus") in _ENDED


def state_of(job: Json) -> str:
    """Returns the state of a job in one word."""
    status, metadata = _status(job), job.get("metadata") or {}
    if metadata.get("deletionTimestamp"):
        return "stopping"
    deployment = status.get("jobDeploymentStatus") or ""
    has_run = bool(status.get("jobStatus"))
    if (job.get("spec") or {}).get("suspend") and not has_run and deployment in _BEFORE_SUSPENDED:
        deployment = "Suspended"
    if deployment in ("Running", "Complete"):
        return str(status.get("jobStatus") or "starting").lower()
    names = {
        "": "created",
        "Initializing": "starting",
        "Waiting": "starting",
        "ValidationFailed": "refused",
    }
    if deployment == "Suspended" and QUEUE_LABEL in (metadata.get("labels") or {}):
        return "queued"
    return names.get(deployment, deployment.lower())


def exit_code(job: Json) -> int:
    """Returns the exit status for a job that has ended, as for a local command."""
    status = _status(job)
    if status.get("jobStatus") == "SUCCEEDED":
        return 0
    if status.get("jobStatus") == "STOPPED":
        return STOPPED_EXIT_CODE
    match = _EXIT_CODE.search(str(status.get("message") or ""))
    return int(match[1]) if match and 0 < int(match[1]) < 256 else 1


def failure_of(job: Json) -> str:
    """Returns why a job failed, in one line; empty if its own output explains it."""
    status = _status(job)
    deployment, reason = status.get("jobDeploymentStatus"), str(status.get("reason") or "")
    message = " ".join(str(status.get("message") or "").split())
    if deployment == "ValidationFailed":
        return (
            f"KubeRay refuses the RayJob: {_cut(message)}; correct that (--dry-run client prints "
            "the object), delete the job and submit again"
        )
    if deployment != "Failed":
        return ""
    explanations = {
        "DeadlineExceeded": "it ran longer than activeDeadlineSeconds allows",
        "PreRunningDeadlineExceeded": (
            "its Ray cluster was not ready within preRunningDeadlineSeconds: see the pods with "
            "kubectl describe pods, and rlcar doctor --kubernetes"
        ),
        "SubmissionFailed": f"the submitter pod failed: {_cut(message)}",
        "JobStatusCheckTimeoutExceeded": "the head pod stopped answering KubeRay",
        "JobDeploymentStatusTransitionGracePeriodExceeded": (
            "Ray has ended the job, but its submitter pod did not end in time"
        ),
    }
    if reason in explanations:
        return explanations[reason]
    return "" if _EXIT_CODE.search(message) else _cut(message) or reason


def row_of(job: Json, now: datetime.datetime) -> JobRow:
    """Returns the line of a job in the list of jobs."""
    metadata, spec, status = job["metadata"], job.get("spec") or {}, _status(job)
    started = read_time(status.get("startTime") or metadata.get("creationTimestamp")) or now
    ended = read_time(status.get("endTime")) or now
    groups = (spec.get("rayClusterSpec") or {}).get("workerGroupSpecs") or []
    annotations = metadata.get("annotations") or {}
    return JobRow(
        metadata["name"],
        metadata["namespace"],
        state_of(job),
        started.astimezone(datetime.UTC).isoformat(),
        round(max(0.0, (ended - started).total_seconds()), 1),
        sum(int(group.get("replicas") or 0) for group in groups if _is_simulators(group)),
        int(status.get("failed") or 0),
        annotations.get(COMMAND_ANNOTATION) or str(spec.get("entrypoint") or "").strip(),
    )


def read_time(text: str | None) -> datetime.datetime | None:
    """Reads a time of the API; None for no time."""
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def progress_of(job: Json, pods: Sequence[Json]) -> str:
    """Describes a job whose output has not begun yet; empty if there is nothing to say."""
    state = state_of(job)
    if state == "queued":
        queue = job["metadata"]["labels"][QUEUE_LABEL]
        return f"queued: Kueue starts the job when queue {queue} has room"
    if state == "suspended":
        return "suspended: the job starts when spec.suspend becomes false"
    if state == "retrying":
        return "a try failed: KubeRay starts another Ray cluster"
    if state != "starting":
        return ""
    ready = sum(_is_ready(pod) for pod in pods)
    return f"starting: {ready} of {len(pods)} pods ready" if pods else "starting"


def problems_of(pods: Sequence[Json], cluster: Json | None) -> list[str]:
    """Returns what keeps pods from running, each once, with its remedy."""
    found = [problem for pod in pods if (problem := problem_of_pod(pod))]
    for condition in ((cluster or {}).get("status") or {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            message = " ".join(str(condition.get("message") or "").split())
            found.append(
                explain_admission(message) or f"KubeRay cannot start pods: {_cut(message)}"
            )
    return list(dict.fromkeys(found))


def problem_of_pod(pod: Json) -> str:
    """Returns what keeps one pod from running; empty if nothing is known."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _unscheduled(str(condition.get("message") or condition.get("reason") or ""))
    statuses = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    images = {c.get("name"): c.get("image") for c in spec.get("containers") or []}
    for container in statuses:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason"), " ".join(str(waiting.get("message") or "").split())
        image = images.get(container.get("name")) or container.get("image")
        if reason in _IMAGE_REASONS:
            return (
                f"image {image} cannot be pulled ({reason}): check --image, whether it was "
                "pushed, and the imagePullSecrets of the service account"
            )
        if reason in _CONTAINER_REASONS:
            return f"container {container.get('name')} does not start ({reason}): {_cut(message)}"
        ended = (container.get("lastState") or {}).get("terminated") or (
            container.get("state") or {}
        ).get("terminated")
        if ended and ended.get("reason") == "OOMKilled":
            return (
                f"container {container.get('name')} exceeded its memory limit (OOMKilled): raise "
                "the limit in k8s/base, or make the replay buffer smaller"
            )
    return ""


def submitter_labels(name: str) -> str:
    """Returns the selector of the pods that submit a job and print its output."""
    return f"{_SUBMITTER_LABEL}={name}"


def cluster_labels(cluster: str) -> str:
    """Returns the selector of the pods of a Ray cluster."""
    return f"{_CLUSTER_LABEL}={cluster}"


def container_has_started(pod: Json) -> bool:
    """Says whether the first container of a pod runs or ran, so that it has a log."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    state = (statuses[0].get("state") or {}) if statuses else {}
    return "running" in state or "terminated" in state


def pod_is_over(pod: Json) -> bool:
    """Says whether all containers of a pod have ended."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _unscheduled(message: str) -> str:
    text = " ".join(message.split())
    if "nvidia.com/gpu" in text:
        return (
            f"no node has a free GPU for a pod ({_cut(text)}): add a GPU node with NVIDIA's "
            "device plugin, wait for another job, or submit without --gpus"
        )
    if match := re.search(r'persistentvolumeclaim "([^"]+)" not found', text):
        return (
            f"the volume claim {match[1]} does not exist: apply k8s/base/platform, or name "
            "another one with --runs-claim or --models-claim"
        )
    if "unbound immediate PersistentVolumeClaims" in text:
        return (
            "a volume claim is not bound: the cluster needs a storage class that offers "
            "ReadWriteMany; see kubectl describe pvc"
        )
    if "volume node affinity conflict" in text or "node(s) exceed max volume count" in text:
        return (
            f"a volume cannot be reached from enough nodes ({_cut(text)}): use a storage class "
            "that offers ReadWriteMany"
        )
    return f"a pod finds no node ({_cut(text)}): ask for less, or add nodes"


def _is_simulators(group: Json) -> bool:
    return SIMULATORS in ((group.get("labels") or {}).get("role"), group.get("groupName"))


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _status(job: Json) -> Json:
    status: Json = job.get("status") or {}
    return status


def _cut(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
