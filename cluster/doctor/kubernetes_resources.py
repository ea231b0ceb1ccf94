"""Checks of a namespace's quota, GPUs, storage and queues, for `rlcar doctor --kubernetes`."""

import re
from collections.abc import Iterator
from typing import Any

from cluster.doctor.machine import Finding
from cluster.jobs.kubernetes.api import Api
from cluster.jobs.kubernetes.manifest import GPU, claims_of, read_base
from cluster.jobs.kubernetes.paths import CLAIMS, LOCAL_QUEUES, NODES, QUOTAS, STORAGE_CLASSES
from cluster.jobs.kubernetes.preflight import claim_problems, items, most_gpus
from cluster.jobs.kubernetes.refusals import RefusedError

Json = dict[str, Any]
_NEARLY_FULL = 0.9
_QUANTITY = re.compile(r"([0-9.]+)(m|k|K|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
# Provisioners of disks that one node mounts at a time; Kubernetes itself does not know.
_ONE_NODE = (
    *("ebs.csi.aws.com", "pd.csi.storage.gke.io", "disk.csi.azure.com", "rancher.io/local-path"),
    *("k8s.io/minikube-hostpath", "kubernetes.io/no-provisioner"),
)


def quotas(api: Api) -> Iterator[Finding]:
    """Compares what the namespace uses with what its quotas allow."""
    found = items(api, QUOTAS)
    if not found:
        text = "none in the namespace" if found is not None else "not visible with these rights"
        yield Finding("quota", "ok", text)
        return
    for quota in found:
        name, status = quota["metadata"]["name"], quota.get("status") or {}
        full, nearly = [], []
        for resource, hard in (status.get("hard") or {}).items():
            used = (status.get("used") or {}).get(resource, "0")
            share = quantity(used) / quantity(hard) if quantity(hard) else 1.0
            if quantity(used) >= quantity(hard) and quantity(hard):
                full.append(f"{resource} {used} of {hard}")
            elif share >= _NEARLY_FULL and quantity(hard):
                nearly.append(f"{resource} {used} of {hard}")
        if full:
            fix = "end other jobs (rlcar jobs list --kubernetes), or have the quota raised"
            yield Finding("quota", "problem", f"{name} is used up: {', '.join(full)}", fix)
        elif nearly:
            fix = "ask for less with --workers and --gpus, or end other jobs"
            yield Finding("quota", "warning", f"{name} is nearly used up: {', '.join(nearly)}", fix)
        else:
            yield Finding("quota", "ok", f"{name} has room")


def gpus(api: Api) -> Iterator[Finding]:
    """Counts the GPUs that nodes offer."""
    nodes = items(api, NODES)
    if nodes is None:
        yield Finding("GPU", "ok", "nodes are not visible with these rights")
        return
    offers = [int((n.get("status") or {}).get("allocatable", {}).get(GPU) or 0) for n in nodes]
    if sum(offers):
        found = f"{sum(offers)} on {sum(map(bool, offers))} of {len(nodes)} nodes"
        yield Finding("GPU", "ok", f"{found}, at most {most_gpus(nodes)} for one pod")
    else:
        found = f"none on {len(nodes)} nodes, which only --gpus needs"
        yield Finding("GPU", "ok", found)


def claims(api: Api) -> Iterator[Finding]:
    """Checks the volume claims of the base, and the storage classes for a shared one."""
    there = items(api, CLAIMS)
    nodes = items(api, NODES)
    job = read_base()
    if there is not None:
        for name, pods in claims_of(job).items():
            problems = list(claim_problems(name, pods, there, nodes))
            for problem in problems:
                text, _, fix = problem.partition(": ")
                yield Finding("storage", "problem", text, fix)
            if not problems:
                yield _claim(next(c for c in there if c["metadata"]["name"] == name))
    classes = items(api, STORAGE_CLASSES)
    if classes is None:
        return
    shared = [c["metadata"]["name"] for c in classes if c.get("provisioner") not in _ONE_NODE]
    if shared:
        yield Finding("storage class", "ok", f"may offer ReadWriteMany: {', '.join(shared)}")
    else:
        names = ", ".join(str(c["metadata"]["name"]) for c in classes) or "none"
        fix = "install one that several nodes can mount: NFS, EFS, Filestore, Azure Files or CephFS"
        found = f"none offers ReadWriteMany ({names}), which several nodes need"
        yield Finding("storage class", "warning", found, fix)


def _claim(claim: Json) -> Finding:
    name, phase = claim["metadata"]["name"], (claim.get("status") or {}).get("phase")
    modes = ", ".join((claim.get("spec") or {}).get("accessModes") or [])
    if phase == "Bound":
        return Finding("storage", "ok", f"{name}: bound, {modes}")
    fix = f"see kubectl describe pvc {name}: some classes bind with the first pod, others never"
    return Finding("storage", "warning", f"{name}: {str(phase).lower()}, {modes}", fix)


def queues(api: Api) -> Iterator[Finding]:
    """Checks the Kueue queues of the namespace."""
    try:
        found = api.list_all(LOCAL_QUEUES)["items"]
    except RefusedError as error:
        if error.code not in (403, 404):
            raise
        is_missing = error.code == 404
        text = "Kueue is not installed" if is_missing else "queues are not visible"
        yield Finding("queue", "ok", f"{text}, which only --queue needs")
        return
    if not found:
        yield Finding("queue", "ok", "no LocalQueue in the namespace, which only --queue needs")
    for queue in found:
        name = queue["metadata"]["name"]
        conditions = (queue.get("status") or {}).get("conditions") or []
        active = next((c for c in conditions if c.get("type") == "Active"), None)
        if active is not None and active.get("status") != "True":
            fix = "create or correct its ClusterQueue (overlay gpu-kueue)"
            yield Finding("queue", "problem", f"{name}: {active.get('message')}", fix)
        else:
            pending = (queue.get("status") or {}).get("pendingWorkloads", 0)
            yield Finding("queue", "ok", f"{name}: {pending} jobs wait")


def quantity(text: str) -> float:
    """Reads a quantity of Kubernetes, such as 500m or 4Gi; 0 for anything else."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        return 0.0
    unit = match[2] or ""
    if unit == "m":
        return float(match[1]) / 1000
    base = 1024 if unit.endswith("i") else 1000
    return float(match[1]) * float(base ** _POWERS[unit.removesuffix("i")])
