"""A namespace of its own on the cluster that KUBECONFIG names, through kubectl."""

import contextlib
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.jobs.kubernetes.api import Api
from cluster.jobs.kubernetes.connect import Connection, Target
from tests.support.kubernetes.cleanup import empty_namespace

Json = dict[str, Any]
K8S = Path(__file__).parents[3] / "k8s"
LABEL = "rlcar-test"  # of the namespaces that these tests create
# How long controllers may take on a busy machine.
PATIENCE_S = 180.0


class Namespace:
    """A namespace that belongs to one test, or to the tests of one module."""

    def __init__(self, name: str):
        self.name = name
        self._cluster_objects: list[str] = []  # that were not there before

    def kubectl(
        self, *arguments: str, text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl in the namespace; a failure shows what kubectl printed."""
        done = subprocess.run(
            ["kubectl", "--namespace", self.name, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    def get(self, kind: str, name: str) -> Json:
        """Returns one object; raises AssertionError if it does not exist."""
        return dict(json.loads(self.kubectl("get", kind, name, "--output", "json").stdout))

    def find(self, kind: str, name: str) -> Json:
        """Returns one object; an empty one if it does not exist."""
        words = ("get", kind, name, "--output", "json", "--ignore-not-found")
        text = self.kubectl(*words).stdout
        return dict(json.loads(text)) if text.strip() else {}

    def list_all(self, kind: str, labels: str = "") -> list[Json]:
        """Returns the objects of a kind."""
        words = ["--selector", labels] if labels else []
        found = json.loads(self.kubectl("get", kind, "--output", "json", *words).stdout)
        return list(found["items"])

    def remember(self, objects: Sequence[Json]) -> None:
        """Has `close` delete those of the cluster-wide objects that are not there yet."""
        for found in objects:
            if "namespace" in found["metadata"] or found["kind"] == "Namespace":
                continue
            group = found["apiVersion"].rpartition("/")[0]
            kind = f"{found['kind'].lower()}{'.' if group else ''}{group}"
            name = f"{kind}/{found['metadata']['name']}"
            if self.kubectl("get", name, check=False).returncode:
                self._cluster_objects.append(name)

    def close(self) -> None:
        """Deletes the namespace, and the cluster-wide objects that its tests have created."""
        empty_namespace(Api(Connection(Target(None, None, self.name))))
        self.kubectl("delete", "namespace", self.name, "--wait=false")
        for name in self._cluster_objects:
            self.kubectl("delete", name, "--ignore-not-found", "--wait=false")

    def apply(self, objects: Sequence[Json], *options: str) -> None:
        """Applies objects server-side; a warning of the API server is an error."""
        words = ("apply", "--server-side", "--field-manager", "rlcar-test", "--warnings-as-errors")
        text = yaml.safe_dump_all(objects)

        def is_applied() -> bool:
            done = self.kubectl(*words, "--filename", "-", *options, text=text, check=False)
            # A cluster in which KubeRay was just installed does not count its objects yet.
            if done.returncode and "status unknown for quota" not in done.stderr:
                raise AssertionError(f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}")
            return not done.returncode

        self.wait("the quota", is_applied)

    def can(self, account: str, verb: str, resource: str, namespace: str | None = None) -> bool:
        """Says whether RBAC lets a ServiceAccount of the namespace do something."""
        plural, _, part = resource.partition("/")
        plural, _, group = plural.partition(".")
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{self.name}:{account}",
                "groups": [
                    "system:authenticated",
                    "system:serviceaccounts",
                    f"system:serviceaccounts:{self.name}",
                ],
                "resourceAttributes": {
                    "namespace": self.name if namespace is None else namespace,
                    "verb": verb,
                    "group": group,
                    "resource": plural,
                    "subresource": part,
                },
            },
        }
        answer = self.review("subjectaccessreviews", review)
        return bool(answer["allowed"])

    def review(self, plural: str, review: Json, *options: str) -> Json:
        """Returns the status of a review of rights."""
        path = f"/apis/{review['apiVersion']}/{plural}"
        words = ("create", "--raw", path, "--filename", "-", *options)
        return dict(json.loads(self.kubectl(*words, text=json.dumps(review)).stdout)["status"])

    def wait(self, what: str, get: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
        """Returns the first true value of a function; fails with all warnings of the namespace."""
        end_s = time.monotonic() + patience_s
        while time.monotonic() < end_s:
            if value := get():
                return value
            time.sleep(0.5)
        raise AssertionError(f"{what} has not come after {patience_s:.0f} s: {self.warnings()}")

    def warnings(self) -> list[str]:
        """Returns the warnings among the events, without those that pass by themselves."""
        passing = (
            *("FailedScheduling", "FailedGetResourceMetric", "FailedComputeMetricsReplicas"),
            "ClusterIPNotAllocated",  # the API server's own repair of a Service that is new to it
        )
        return [
            f"{event['involvedObject']['kind']} {event['involvedObject']['name']}: "
            f"{event['reason']}: {event.get('message', '')}"
            for event in self.list_all("events")
            if event.get("type") == "Warning"
            and event.get("reason") not in passing
            # A controller has read the object before another one changed it, and tries again.
            and "the object has been modified; please apply" not in event.get("message", "")
        ]


def serves(api_version: str, kind: str) -> bool:
    """Says whether the cluster knows a kind of object, such as RayJob of ray.io/v1."""
    root = "/apis" if "/" in api_version else "/api"
    words = ["kubectl", "get", "--raw", f"{root}/{api_version}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    return done.returncode == 0 and any(
        found["kind"] == kind for found in json.loads(done.stdout)["resources"]
    )


def render(overlay: Path, namespace: str, folder: Path) -> list[Json]:
    """Returns the objects of an overlay, moved to a namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    kustomization: Json = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [os.path.relpath(overlay.resolve(), folder.resolve())],
    }
    if image := os.environ.get("RLCAR_TEST_IMAGE"):
        name, _, tag = image.rpartition(":")
        kustomization["images"] = [{"name": "rlcar", "newName": name, "newTag": tag}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@contextlib.contextmanager
def own_namespace() -> Iterator[Namespace]:
    """Creates a namespace with a random name, and deletes it with all that it contains."""
    space = Namespace(f"rlcar-test-{secrets.token_hex(3)}")
    # `create`, not `apply`: it refuses a namespace that exists already.
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": space.name, "labels": {LABEL: "true"}},
    }
    space.kubectl("create", "--filename", "-", text=json.dumps(manifest))
    try:
        yield space
    finally:
        space.close()
