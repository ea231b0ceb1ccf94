"""A namespace on the fake API server or on a real cluster, with what tests do in it."""

import contextlib
import datetime
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.jobs.kubernetes.api import Api
from cluster.jobs.kubernetes.connect import Connection, Target
from cluster.jobs.kubernetes.paths import (
    CLAIMS,
    NAMESPACES,
    PODS,
    PRIORITY_CLASSES,
    RAY_JOBS,
    SERVICE_ACCOUNTS,
    Resource,
)
from cluster.jobs.kubernetes.refusals import RefusedError
from rlcar.errors import UserError
from tests.support.kubernetes.cleanup import empty_namespace
from tests.support.kubernetes.kuberay import EXIT_CODE, PHASE

Json = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"
_ROLES = Resource(_RBAC, "v1", "roles")
_BINDINGS = Resource(_RBAC, "v1", "rolebindings")
_PATIENCE_S = 120.0


class TestedCluster:
    """A namespace of its own, and an administrator's access to it."""

    __test__ = False

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        write_lines: Callable[[str, str, str, Sequence[str]], None] | None,
    ):
        self.kubeconfig, self.folder, self._write_lines = kubeconfig, folder, write_lines
        self.pause_operator: Callable[[], None] = lambda: None
        self.namespace = f"rlcar-client-{secrets.token_hex(3)}"
        self.api = Api(Connection(Target(str(kubeconfig), None, self.namespace)))
        self.api.create(NAMESPACES, {"metadata": {"name": self.namespace}} | _kind("Namespace"))
        for name in ("rlcar-runs", "rlcar-models"):
            self.add_claim(name, "ReadWriteMany")
        account = {"metadata": {"name": "rlcar-trainer"}} | _kind("ServiceAccount")
        self.api.create(SERVICE_ACCOUNTS, account)
        self.priority_classes: list[str] = []  # to delete at the end
        self.add_priority_class(self.namespace)

    @property
    def options(self) -> list[str]:
        """The options of rlcar for this namespace."""
        return ["--kubernetes", "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace]

    @property
    def submit_options(self) -> list[str]:
        """The options of rlcar submit for jobs that can run in this namespace."""
        return [*self.options, "--priority-class", self.namespace]

    @property
    def can_write_logs(self) -> bool:
        """Says whether pods are simulated, so that tests write what they print."""
        return self._write_lines is not None

    def close(self) -> None:
        """Deletes the namespace with all that it contains."""
        empty_namespace(self.api)
        self.api.delete(NAMESPACES, self.api.namespace)
        for name in self.priority_classes:
            self.api.delete(PRIORITY_CLASSES, name)

    def add_priority_class(self, name: str) -> None:
        """Creates a PriorityClass, unless the cluster has it."""
        priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1}
        try:
            self.api.create(PRIORITY_CLASSES, priority | {"metadata": {"name": name}})
        except RefusedError as error:
            if error.code != 409:
                raise
        else:
            self.priority_classes.append(name)

    def add_claim(self, name: str, mode: str) -> None:
        """Creates a persistent volume claim."""
        spec = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"metadata": {"name": name}, "spec": spec} | _kind("PersistentVolumeClaim")
        self.api.create(CLAIMS, claim)

    def user_with(self, rules: list[Json]) -> Path:
        """Creates a service account with these rights; returns a kubeconfig with its token."""
        return self.write_kubeconfig({"token": self.token_with(rules)}, "user")

    def token_with(self, rules: list[Json]) -> str:
        """Creates a service account with these rights; returns a token of it."""
        name = f"user-{secrets.token_hex(3)}"
        self.api.create(SERVICE_ACCOUNTS, {"metadata": {"name": name}} | _kind("ServiceAccount"))
        role = {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": {"name": name}}
        self.api.create(_ROLES, role | {"rules": rules})
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
        binding = {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "subjects": [subject],
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        }
        self.api.create(_BINDINGS, binding)
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{name}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        return str(self.api.raw("POST", path, "create", request)["status"]["token"])

    def write_kubeconfig(
        self, user: Json, name: str, server: str | None = None, **cluster: Any
    ) -> Path:
        """Writes a kubeconfig for this cluster with another user, or with another address."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        entry = config["clusters"][0]
        entry["cluster"] |= cluster
        if server is not None:
            entry["cluster"]["server"] = server
        if user:
            config["users"] = [{"name": name, "user": user}]
            config["contexts"][0]["context"]["user"] = name
        path = self.folder / f"{name}-{secrets.token_hex(3)}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def wait(self, what: str, get: Callable[[], Any]) -> Any:
        """Returns the first true value of a function."""
        end_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end_s:
            if value := get():
                return value
            time.sleep(0.05)
        raise AssertionError(f"{what} has not come")

    def submitter(self, job: str, without: Sequence[str] = ()) -> str:
        """Waits for a running pod that submits a job; returns its name."""

        def find() -> str:
            labels = f"batch.kubernetes.io/job-name={job}"
            for pod in self.api.list_all(PODS, labels=labels)["items"]:
                name = str(pod["metadata"]["name"])
                if (pod.get("status") or {}).get("phase") == "Running" and name not in without:
                    return name
            return ""

        return str(self.wait(f"a submitter of {job}", find))

    def print_lines(self, pod: str, lines: Sequence[str]) -> None:
        """Lets the submitter container of a pod print lines now."""
        assert self._write_lines is not None
        stamped = []
        for line in lines:
            now_ns = time.time_ns()
            whole = datetime.datetime.fromtimestamp(now_ns // 10**9, datetime.UTC)
            stamped.append(f"{whole:%Y-%m-%dT%H:%M:%S}.{now_ns % 10**9:09}Z {line}")
        self._write_lines(self.namespace, pod, "ray-job-submitter", stamped)

    def end_pod(self, pod: str, code: int = 0) -> None:
        """Lets a simulated pod end."""
        annotations = {PHASE: "Failed" if code else "Succeeded", EXIT_CODE: str(code)}
        there = self.api.get(PODS, pod)["metadata"].get("annotations")
        operations: list[Json] = (
            [] if there else [{"op": "add", "path": "/metadata/annotations", "value": {}}]
        )
        for name, value in annotations.items():
            at = f"/metadata/annotations/{name.replace('/', '~1')}"
            operations.append({"op": "add", "path": at, "value": value})
        self.api.patch(PODS, pod, operations)

    def patch_as(self, manager: str, job: str, operations: list[Json]) -> None:
        """Changes a job as another client would."""
        self.api.patch(RAY_JOBS, job, operations, manager=manager)

    def restart_submitter(self, job: str, pod: str) -> None:
        """Replaces the submitter pod of a job, as after the loss of its node."""
        with contextlib.suppress(UserError):
            self.api.delete(PODS, pod)


def log_folder_writer(folder: str) -> Callable[[str, str, str, Sequence[str]], None]:
    """Returns a function that writes logs where a simulated kubelet reads them."""

    def write(namespace: str, pod: str, container: str, lines: Sequence[str]) -> None:
        file = Path(folder, namespace, pod, f"{container}.log")
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as stream:
            stream.write("".join(f"{line}\n" for line in lines))
            stream.flush()
            os.fsync(stream.fileno())

    return write


def _kind(kind: str) -> Json:
    return {"apiVersion": "v1", "kind": kind}
