"""What KubeRay's operator and the kubelets do, as far as the client sees it, on the fake server."""

import contextlib
import secrets
import threading
from typing import Any

from tests.support.kubernetes.store import ApiError, Key, Store

Json = dict[str, Any]
PHASE, EXIT_CODE = "kubelet.test/phase", "kubelet.test/exit-code"
_FINALIZER = "ray.io/rayjob-finalizer"
_MANAGER = "kuberay-operator"


class KubeRay:
    """Acts on every change of an object, in a thread of its own."""

    def __init__(self, store: Store):
        self._store = store
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "KubeRay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def pause(self) -> None:
        """Stops acting, as an operator that does not run."""
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        seen = -1
        while not self._ends.is_set():
            with self._store.changed:
                if self._store.newest == seen:
                    self._store.changed.wait(0.05)
                    continue
                seen = self._store.newest
                for pod in self._store.select("", "pods", None):
                    self._run_pod(pod)
                for cluster in self._store.select("ray.io", "rayclusters", None):
                    self._run_cluster(cluster)
                for job in self._store.select("ray.io", "rayjobs", None):
                    with contextlib.suppress(ApiError):
                        self._run_job(job)

    def _run_job(self, job: Json) -> None:
        spec, status = job["spec"], dict(job.get("status") or {})
        if job["metadata"].get("deletionTimestamp"):
            self._update("ray.io", "rayjobs", job, metadata={"finalizers": []})
            return
        deployment = status.get("jobDeploymentStatus")
        if not deployment and spec.get("suspend"):
            self._set_status(job, {"jobDeploymentStatus": "Suspended"})
        elif not deployment or (deployment == "Suspended" and not spec.get("suspend")):
            self._start(job)
        elif deployment == "Running":
            self._check_submitter(job, status)

    def _start(self, job: Json) -> None:
        name = job["metadata"]["name"]
        cluster = f"{name}-{secrets.token_hex(3)[:5]}"
        failed = int((job.get("status") or {}).get("failed") or 0)
        owned = self._owned(job)
        body = {
            "apiVersion": "ray.io/v1",
            "kind": "RayCluster",
            "metadata": owned,
            "spec": job["spec"]["rayClusterSpec"],
        }
        self._create("ray.io", "rayclusters", job, cluster, body)
        self._create_submitter(job)
        status = {
            "jobDeploymentStatus": "Running",
            "jobStatus": "RUNNING",
            "jobId": f"{name}-{secrets.token_hex(3)[:5]}",
            "rayClusterName": cluster,
            "startTime": job["metadata"]["creationTimestamp"],
            "failed": failed,
        }
        self._update("ray.io", "rayjobs", job, metadata={"finalizers": [_FINALIZER]}, status=status)

    def _create_submitter(self, job: Json) -> None:
        name = job["metadata"]["name"]
        labels = {"batch.kubernetes.io/job-name": name, "job-name": name}
        pod = job["spec"]["submitterPodTemplate"]["spec"]
        submitter = {"metadata": self._owned(job) | {"labels": labels}, "spec": pod}
        self._create("", "pods", job, f"{name}-{secrets.token_hex(3)[:5]}", submitter)

    def _check_submitter(self, job: Json, status: Json) -> None:
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        pods = [
            pod
            for pod in self._store.select("", "pods", namespace)
            if (pod["metadata"].get("labels") or {}).get("job-name") == name
        ]
        if not pods:
            self._create_submitter(job)  # in place of one that was lost with its node
        for pod in pods:
            phase = (pod.get("status") or {}).get("phase")
            if phase == "Succeeded":
                self._set_status(job, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
            elif phase == "Failed":
                self._fail(job, status, pod)

    def _fail(self, job: Json, status: Json, pod: Json) -> None:
        namespace = job["metadata"]["namespace"]
        code = (pod["metadata"].get("annotations") or {}).get(EXIT_CODE, "1")
        failed = int(status.get("failed") or 0) + 1
        if failed <= int(job["spec"].get("backoffLimit") or 0):
            # Each try has a Ray cluster and a submitter of its own.
            self._store.delete(Key("", "pods", namespace, pod["metadata"]["name"]))
            self._store.delete(Key("ray.io", "rayclusters", namespace, status["rayClusterName"]))
            fresh = self._store.get(Key("ray.io", "rayjobs", namespace, job["metadata"]["name"]))
            self._start(fresh | {"status": {"failed": failed}})
            return
        message = f"Job entrypoint command failed with exit code {code}, last available logs"
        self._set_status(
            job,
            {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "FAILED",
                "reason": "AppFailed",
                "message": message,
                "failed": failed,
            },
        )

    def _run_cluster(self, cluster: Json) -> None:
        """Gives each group as many pods as it should have."""
        spec, namespace = cluster["spec"], cluster["metadata"]["namespace"]
        groups = [("head", 1, spec["headGroupSpec"])]
        groups += [
            (g["groupName"], int(g.get("replicas") or 0), g) for g in spec["workerGroupSpecs"]
        ]
        name = cluster["metadata"]["name"]
        for group, count, about in groups:
            labels = {"ray.io/cluster": name, "ray.io/group": group}
            pods = [
                pod
                for pod in self._store.select("", "pods", namespace)
                if labels.items() <= (pod["metadata"].get("labels") or {}).items()
            ]
            for _ in range(count - len(pods)):
                pod = {
                    "metadata": self._owned(cluster) | {"labels": labels},
                    "spec": about["template"]["spec"],
                }
                suffix = secrets.token_hex(3)[:5]
                self._create("", "pods", cluster, f"{name}-{group}-{suffix}", pod)
            for pod in pods[count:]:
                self._store.delete(Key("", "pods", namespace, pod["metadata"]["name"]))

    def _run_pod(self, pod: Json) -> None:
        container = pod["spec"]["containers"][0]
        annotations = pod["metadata"].get("annotations") or {}
        status = pod.get("status") or {}
        phase = annotations.get(PHASE, "Running")
        about: Json = {"name": container["name"], "image": container.get("image", "")}
        if "missing" in about["image"]:
            phase = "Pending"
            about["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
        elif phase == "Running":
            about["state"] = {"running": {}}
        else:
            code = int(annotations.get(EXIT_CODE, "0" if phase == "Succeeded" else "1"))
            about["state"] = {"terminated": {"exitCode": code}}
        if status.get("phase") == phase or status.get("conditions"):
            return
        self._update("", "pods", pod, status={"phase": phase, "containerStatuses": [about]})

    def _owned(self, owner: Json) -> Json:
        return {"ownerReferences": [{"uid": owner["metadata"]["uid"], "controller": True}]}

    def _create(self, group: str, plural: str, owner: Json, name: str, body: Json) -> None:
        key = Key(group, plural, owner["metadata"]["namespace"], name)
        self._store.create(key, body, _MANAGER)

    def _set_status(self, found: Json, status: Json) -> None:
        merged = dict(found.get("status") or {}) | status
        self._update("ray.io", "rayjobs", found, status=merged)

    def _update(self, group: str, plural: str, found: Json, **parts: Json) -> None:
        metadata = found["metadata"]
        key = Key(group, plural, metadata["namespace"], metadata["name"])
        fresh = self._store.get(key)
        for name, value in parts.items():
            fresh[name] = fresh[name] | value if name == "metadata" else value
        self._store.update(key, fresh, _MANAGER)
