"""Checks before a job is created: its namespace, what its pods name, its queue and its GPUs."""

from collections.abc import Iterator, Sequence
from typing import Any

from cluster.jobs.kubernetes.api import Api
from cluster.jobs.kubernetes.manifest import GPU, QUEUE_LABEL, claims_of, gpus_of, named_by_pods
from cluster.jobs.kubernetes.paths import (
    CLAIMS,
    LOCAL_QUEUES,
    NAMESPACES,
    NODES,
    PRIORITY_CLASSES,
    SERVICE_ACCOUNTS,
    Resource,
)
from cluster.jobs.kubernetes.refusals import RefusedError
from rlcar.errors import UserError

Json = dict[str, Any]


def check(api: Api, job: Json) -> None:
    """Raises UserError with all that would keep the job from running."""
    _check_namespace(api)
    found = list(problems(api, job))
    if found:
        raise UserError(f"{'; '.join(found)}; or submit all the same with --skip-checks")


def problems(api: Api, job: Json) -> Iterator[str]:
    """Yields what would keep a job from running; what may not be read is left out."""
    nodes = items(api, NODES)
    gpus = gpus_of(job)
    if gpus and nodes is not None and gpus > most_gpus(nodes):
        yield (
            f"the job asks for {gpus} GPU on one node, and the largest node offers "
            f"{most_gpus(nodes)} ({GPU}): add a GPU node with NVIDIA's device plugin, or submit "
            "with --gpus 0"
        )
    claims = items(api, CLAIMS)
    for name, pods in claims_of(job).items() if claims is not None else ():
        yield from claim_problems(name, pods, claims or [], nodes)
    yield from missing_objects(api, job)
    queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    if queue:
        yield from _queue_problems(api, queue)


def missing_objects(api: Api, job: Json) -> Iterator[str]:
    """Yields what the pods of a job name and the cluster does not have.

    The API server accepts the RayJob nevertheless, and only refuses its pods.
    """
    for name in named_by_pods(job, "priorityClassName"):
        if is_missing(api, PRIORITY_CLASSES, name):
            yield (
                f"the cluster has no PriorityClass {name}: apply k8s/base/platform, or name "
                "another one with --priority-class"
            )
    for name in named_by_pods(job, "serviceAccountName"):
        if is_missing(api, SERVICE_ACCOUNTS, name):
            yield (
                f"namespace {api.namespace} has no ServiceAccount {name}: apply k8s/base/platform "
                "to it, or choose another --namespace"
            )


def claim_problems(
    name: str, pods: int, claims: Sequence[Json], nodes: Sequence[Json] | None
) -> Iterator[str]:
    """Yields why a number of pods cannot mount a claim."""
    claim = next((claim for claim in claims if claim["metadata"]["name"] == name), None)
    if claim is None:
        yield (
            f"there is no persistent volume claim {name}: apply k8s/base/platform, or name "
            "another one with --runs-claim and --models-claim"
        )
        return
    modes = (claim.get("spec") or {}).get("accessModes") or []
    is_shared = "ReadWriteMany" in modes
    if "ReadWriteOncePod" in modes and pods > 1:
        yield (
            f"the volume claim {name} is ReadWriteOncePod, and {pods} pods of the job mount it: "
            "use a claim with ReadWriteMany"
        )
    elif not is_shared and pods > 1 and nodes is not None and len(_usable(nodes)) > 1:
        yield (
            f"the volume claim {name} is {'/'.join(modes) or 'without access mode'}, and {pods} "
            f"pods on {len(_usable(nodes))} nodes would mount it: use a claim with ReadWriteMany"
        )
    phase = (claim.get("status") or {}).get("phase")
    if phase == "Lost":
        yield f"the volume of claim {name} is lost: restore it, or use another claim"


def most_gpus(nodes: Sequence[Json]) -> int:
    """Returns the number of GPUs of the node that has most."""
    offers = [(node.get("status") or {}).get("allocatable") or {} for node in _usable(nodes)]
    return max((int(offer.get(GPU) or 0) for offer in offers), default=0)


def items(api: Api, resource: Resource) -> list[Json] | None:
    """Returns all objects of a kind; None without the right to list them."""
    try:
        return list(api.list_all(resource)["items"])
    except RefusedError as error:
        if error.code == 403:
            return None
        raise


def is_missing(api: Api, resource: Resource, name: str) -> bool:
    """Says whether an object does not exist; False without the right to see it."""
    try:
        api.get(resource, name)
    except RefusedError as error:
        if error.code not in (403, 404):
            raise
        return error.code == 404
    return False


def _check_namespace(api: Api) -> None:
    try:
        api.get(NAMESPACES, api.namespace)
    except RefusedError as error:
        if error.code == 403:
            return  # creating the job tells
        if error.code == 404:
            raise UserError(
                f"there is no namespace {api.namespace} on {api.connection.where}: apply "
                "k8s/base/platform, or name another one with --namespace"
            ) from None
        raise


def _queue_problems(api: Api, queue: str) -> Iterator[str]:
    try:
        api.get(LOCAL_QUEUES, queue)
    except RefusedError as error:
        if error.code == 404 and error.status.details.get("name"):
            yield (
                f"namespace {api.namespace} has no Kueue LocalQueue {queue}: create it (overlay "
                "gpu-kueue), or choose another --queue"
            )
        elif error.code == 404:
            yield "Kueue is not installed on this cluster: leave out --queue, or install Kueue"
        elif error.code != 403:
            raise


def _usable(nodes: Sequence[Json]) -> list[Json]:
    return [node for node in nodes if not (node.get("spec") or {}).get("unschedulable")]
