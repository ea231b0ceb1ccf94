"""Checks whether a job can run on a Kubernetes cluster: access, KubeRay, rights and storage."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

from cluster.doctor.kubernetes_resources import claims, gpus, queues, quotas
from cluster.doctor.machine import Finding
from cluster.jobs.kubernetes import jobs
from cluster.jobs.kubernetes.api import Api
from cluster.jobs.kubernetes.connect import Connection, Target
from cluster.jobs.kubernetes.manifest import JobOptions, build, read_base
from cluster.jobs.kubernetes.names import new_name
from cluster.jobs.kubernetes.paths import (
    ACCESS_REVIEWS,
    CLAIMS,
    DEPLOYMENTS,
    EVENTS,
    NAMESPACES,
    PODS,
    QUOTAS,
    RAY_CLUSTERS,
    RAY_JOBS,
    SECRETS,
    Resource,
)
from cluster.jobs.kubernetes.preflight import items, missing_objects
from cluster.jobs.kubernetes.refusals import RefusedError
from cluster.jobs.kubernetes.retries import Patience
from cluster.jobs.kubernetes.status import problems_of
from rlcar.errors import UserError

Json = dict[str, Any]
_OLDEST_KUBERNETES = (1, 30)  # the pause before a pod ends (preStop.sleep) is newer
_OLDEST_KUBERAY = (1, 7)
_OPERATOR_LABELS = "app.kubernetes.io/name=kuberay-operator"
_INSTALL = "install KubeRay 1.7, and its CRDs with kubectl apply --server-side (k8s/README.md)"
# What overlays need of the operator, beyond its defaults.
_GATES = {"RayCronJob": "cron-ray"}
# The rights that each command uses.
_RIGHTS: dict[Resource, tuple[str, ...]] = {
    RAY_JOBS: ("get", "list", "watch", "create", "patch", "delete"),
    RAY_CLUSTERS: ("get", "patch"),
    PODS: ("get", "list"),
    Resource("", "v1", "pods/log"): ("get",),
    EVENTS: ("list",),
    CLAIMS: ("list",),
    QUOTAS: ("list",),
}


def examine_kubernetes(target: Target) -> list[Finding]:
    """Checks a cluster from this machine; changes nothing on it."""
    try:
        api = Api(Connection(target), Patience(attempts=2))
    except UserError as error:
        return [_problem("kubeconfig", error)]
    found = list(_reached(api))
    if any(finding.state == "problem" for finding in found):
        return found
    checks: list[tuple[str, Callable[[Api], Iterator[Finding]]]] = [
        ("namespace", _namespace),
        ("CRDs", _crds),
        ("operator", _operator),
        ("rights", _rights),
        ("RayJob", _dry_run),
        ("quota", quotas),
        ("GPU", gpus),
        ("storage", claims),
        ("pods", _pods),
        ("token", _token),
        ("queue", queues),
    ]
    for name, check in checks:
        try:
            found += check(api)
        except UserError as error:
            found.append(_problem(name, error))
    return found


def _reached(api: Api) -> Iterator[Finding]:
    where = api.connection.where
    try:
        version = str(api.raw("GET", "/version", "get").get("gitVersion"))
    except UserError as error:
        yield _problem("API server", error)
        return
    is_old = _numbers(version) < _OLDEST_KUBERNETES
    fix = "update the cluster to Kubernetes 1.30 or later" if is_old else ""
    state: Literal["ok", "problem"] = "problem" if is_old else "ok"
    yield Finding("API server", state, f"{where}, version {version}", fix)
    found = f"user {where.user}, {where.credentials}"
    if api.connection.verifies_tls:
        yield Finding("credentials", "ok", found)
    else:
        fix = "replace insecure-skip-tls-verify in the kubeconfig by certificate-authority-data"
        yield Finding("credentials", "warning", f"{found}; the server is not verified", fix)


def _namespace(api: Api) -> Iterator[Finding]:
    try:
        labels = api.get(NAMESPACES, api.namespace)["metadata"].get("labels") or {}
    except RefusedError as error:
        if error.code != 403:
            raise
        yield Finding("namespace", "ok", f"{api.namespace}, not visible with these rights")
        return
    level = labels.get("pod-security.kubernetes.io/enforce")
    if level is None:
        fix = "kubectl apply -k k8s/base/platform sets pod-security.kubernetes.io/enforce"
        yield Finding("namespace", "warning", f"{api.namespace}, without Pod Security", fix)
    else:
        yield Finding("namespace", "ok", f"{api.namespace}, Pod Security {level}")


def _crds(api: Api) -> Iterator[Finding]:
    try:
        known = api.raw("GET", "/apis/ray.io/v1", "get").get("resources") or []
    except RefusedError as error:
        if error.code != 404:
            raise
        yield Finding("CRDs", "problem", "the cluster knows no objects of ray.io/v1", _INSTALL)
        return
    names = {entry["name"] for entry in known if "/" not in entry["name"]}
    missing = sorted({"rayjobs", "rayclusters", "rayservices"} - names)
    if missing:
        yield Finding("CRDs", "problem", f"missing: {', '.join(missing)}", _INSTALL)
    else:
        yield Finding("CRDs", "ok", f"ray.io/v1: {', '.join(sorted(names))}")


def _operator(api: Api) -> Iterator[Finding]:
    try:
        found = api.list_all(DEPLOYMENTS, everywhere=True, labels=_OPERATOR_LABELS)["items"]
    except RefusedError as error:
        if error.code != 403:
            raise
        found = []
    if not found:
        with_status = [job for job in items(api, RAY_JOBS) or [] if job.get("status")]
        if with_status:
            yield Finding("operator", "ok", "not visible with these rights, but it acts on RayJobs")
        else:
            fix = f"check with kubectl get deployments -A -l {_OPERATOR_LABELS}, or {_INSTALL}"
            yield Finding("operator", "warning", "no deployment of it is visible", fix)
        return
    for deployment in found:
        yield from _deployment(deployment)


def _deployment(deployment: Json) -> Iterator[Finding]:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    image = str(containers[0].get("image", ""))
    version = image.partition("@")[0].rpartition(":")[2]
    where = deployment["metadata"].get("namespace")
    if not (deployment.get("status") or {}).get("availableReplicas"):
        fix = f"see kubectl describe deployments --namespace {where}"
        yield Finding("operator", "problem", f"{image} does not run", fix)
    elif _numbers(version) and _numbers(version) < _OLDEST_KUBERAY:
        fix = "update it to KubeRay 1.7, and its CRDs first"
        yield Finding("operator", "problem", f"version {version} is too old", fix)
    else:
        yield Finding("operator", "ok", f"{image} in namespace {where}")
    words = " ".join(
        map(str, [*(containers[0].get("args") or []), *(containers[0].get("command") or [])])
    )
    for gate, overlay in _GATES.items():
        if f"{gate}=true" in words:
            yield Finding("feature gates", "ok", f"{gate} is on, which overlay {overlay} needs")
        else:
            found = (
                f"{gate} is off, which only overlay {overlay} needs (--feature-gates={gate}=true)"
            )
            yield Finding("feature gates", "ok", found)


def _rights(api: Api) -> Iterator[Finding]:
    missing, count = [], 0
    for resource, verbs in _RIGHTS.items():
        for verb in verbs:
            count += 1
            if not _is_allowed(api, resource, verb):
                missing.append(f"{verb} {resource.full_name}")
    if missing:
        fix = "have the role rlcar-submitter of k8s/base/platform bound to this user"
        found = f"user {api.connection.where.user} may not {', '.join(missing)}"
        yield Finding("rights", "problem", f"{found} in namespace {api.namespace}", fix)
    else:
        yield Finding("rights", "ok", f"all {count} that the commands use")


def _is_allowed(api: Api, resource: Resource, verb: str) -> bool:
    plural, _, part = resource.plural.partition("/")
    attributes = {
        "namespace": api.namespace,
        "verb": verb,
        "group": resource.group,
        "resource": plural,
    }
    attributes |= {"subresource": part} if part else {}
    review = {
        "apiVersion": ACCESS_REVIEWS.api_version,
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    return bool(api.create(ACCESS_REVIEWS, review)["status"].get("allowed"))


def _dry_run(api: Api) -> Iterator[Finding]:
    """Lets the API check the RayJob of the base: its fields, admission rules and the quota."""
    options = JobOptions(new_name("train"), api.namespace, ("train",))
    job = build(read_base(), options)
    jobs.create(api, job, dry_run=True)
    yield Finding("RayJob", "ok", "the API accepts a training (dry run)")
    for problem in missing_objects(api, job):
        text, _, fix = problem.partition(": ")
        yield Finding("RayJob", "problem", text, fix)


def _pods(api: Api) -> Iterator[Finding]:
    found = items(api, PODS)
    if found is None:
        return
    problems = problems_of(found, None)
    for cluster in items(api, RAY_CLUSTERS) or []:
        problems += problems_of([], cluster)  # it may lack pods that were refused
    for problem in dict.fromkeys(problems):
        text, _, fix = problem.partition(": ")
        yield Finding("pods", "problem", text, fix)
    if not problems:
        yield Finding("pods", "ok", f"{len(found)} in namespace {api.namespace}, none is stuck")


def _token(api: Api) -> Iterator[Finding]:
    """KubeRay creates a Secret with the token of each Ray cluster that requires one."""
    for cluster in items(api, RAY_CLUSTERS) or []:
        if ((cluster["spec"].get("authOptions") or {}).get("mode")) != "token":
            continue
        name = cluster["metadata"]["name"]
        if _is_allowed(api, SECRETS, "get"):
            try:
                api.get(SECRETS, name)
            except RefusedError as error:
                if error.code != 404:
                    raise
                fix = "see the operator's log; delete the RayCluster, and KubeRay creates both anew"
                yield Finding("token", "problem", f"Ray cluster {name} has no token Secret", fix)
                continue
            yield Finding("token", "ok", f"Ray cluster {name} has its Secret")
        else:
            yield Finding("token", "ok", f"Ray cluster {name} requires one, which you may not read")


def _problem(check: str, error: UserError) -> Finding:
    text, separator, fix = str(error).partition(": ")
    if not separator or len(text) < 10:
        text, fix = str(error), ""
    return Finding(check, "problem", text, fix)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version)[:2])
