"""Deletes what would keep a namespace in the state `Terminating` for ever."""

import contextlib
import time
from typing import Any

from cluster.jobs.kubernetes.api import Api
from cluster.jobs.kubernetes.paths import RAY_CLUSTERS, RAY_JOBS, Resource
from cluster.jobs.kubernetes.refusals import RefusedError

Json = dict[str, Any]
_KINDS = (
    Resource("ray.io", "v1", "raycronjobs"),
    RAY_JOBS,
    Resource("ray.io", "v1", "rayservices"),
    RAY_CLUSTERS,
    Resource("batch", "v1", "jobs"),
)


def empty_namespace(api: Api, patience_s: float = 60.0) -> None:
    """Deletes the objects with finalizers in the namespace of `api`, and waits for their end.

    Call it before the namespace is deleted. Afterwards, KubeRay cannot create the Job that removes
    a cluster's state from Redis, the Job controller cannot replace a failed pod, and both wait for
    that. Finalizers that are left after `patience_s`, for example because KubeRay's operator does
    not run, are removed.
    """
    for kind, found in _objects(api):
        with contextlib.suppress(RefusedError):
            api.delete(kind, found["metadata"]["name"])
    end_s = time.monotonic() + patience_s
    while left := _objects(api):
        if time.monotonic() > end_s:
            for kind, found in left:
                remove = [{"op": "add", "path": "/metadata/finalizers", "value": []}]
                with contextlib.suppress(RefusedError):
                    api.patch(kind, found["metadata"]["name"], remove)
        time.sleep(0.2)


def _objects(api: Api) -> list[tuple[Resource, Json]]:
    found = []
    for kind in _KINDS:
        try:
            found += [(kind, one) for one in api.list_all(kind)["items"]]
        except RefusedError as error:
            if error.code != 404:  # a cluster without KubeRay
                raise
    return found
