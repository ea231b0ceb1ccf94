"""The server enforces the quota, the limits and Pod Security of the namespace."""

import copy
import json
from typing import Any

import pytest

from tests.support.kubernetes.kubectl import Namespace

pytestmark = pytest.mark.kubernetes
Json = dict[str, Any]

POD: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "probe"},
    "spec": {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "probe",
                "image": "rlcar",
                "resources": {
                    "requests": {"cpu": "100m", "memory": "64Mi"},
                    "limits": {"memory": "64Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    },
}


def changed(path: str, value: Any) -> Json:
    """Returns the pod with one field changed; `None` removes it."""
    pod = copy.deepcopy(POD)
    *parents, last = path.split(".")
    place: Any = pod["spec"]
    for word in parents:
        place = place[int(word)] if word.isdigit() else place.setdefault(word, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return pod


def test_a_conforming_pod_is_accepted(platform: Namespace) -> None:
    platform.apply([POD], "--dry-run=server")


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("securityContext.runAsNonRoot", None, "runAsNonRoot != true"),
        ("securityContext.runAsUser", 0, "runAsUser=0"),
        ("securityContext.seccompProfile", None, "seccompProfile"),
        ("containers.0.securityContext.allowPrivilegeEscalation", None, "allowPrivilegeEscalation"),
        ("containers.0.securityContext.capabilities", None, "unrestricted capabilities"),
        ("containers.0.securityContext.privileged", True, "privileged"),
        ("hostNetwork", True, "host namespaces"),
        ("hostPID", True, "host namespaces"),
        ("volumes", [{"name": "host", "hostPath": {"path": "/"}}], "hostPath"),
    ],
)
def test_pod_security_refuses(platform: Namespace, path: str, value: Any, complaint: str) -> None:
    refused = platform.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--filename", "-"),
        text=_json(changed(path, value)),
        check=False,
    )
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr or "Invalid value" in refused.stderr
    assert complaint in refused.stderr


@pytest.mark.parametrize(
    ("resource", "amount"),
    [("cpu", "100000"), ("memory", "900Ti"), ("nvidia.com/gpu", "1000")],
)
def test_the_quota_refuses_a_pod_that_is_too_large(
    platform: Namespace, resource: str, amount: str
) -> None:
    pod = changed("containers.0.resources.limits", {"memory": "64Mi", resource: amount})
    pod["spec"]["containers"][0]["resources"]["requests"][resource] = amount
    refused = platform.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--filename", "-"),
        text=_json(pod),
        check=False,
    )
    assert refused.returncode != 0
    assert "exceeded quota: rlcar" in refused.stderr
    assert f"requests.{resource}" in refused.stderr


def test_the_quota_counts_ray_jobs(platform: Namespace) -> None:
    hard = platform.get("resourcequota", "rlcar")["spec"]["hard"]
    assert {"count/rayjobs.ray.io", "count/rayclusters.ray.io", "pods"} <= hard.keys()
    platform.wait(
        "the status of the quota",
        lambda: (
            platform.get("resourcequota", "rlcar").get("status", {}).get("used", {}).keys()
            == hard.keys()
        ),
    )


def test_a_container_without_resources_gets_defaults(platform: Namespace) -> None:
    # Without them, the quota on CPU and memory would refuse the pod.
    pod = changed("containers.0.resources", None)
    done = platform.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--output", "json", "--filename", "-"),
        text=_json(pod),
    )
    resources = json.loads(done.stdout)["spec"]["containers"][0]["resources"]
    assert resources["requests"].keys() >= {"cpu", "memory"}
    assert "memory" in resources["limits"]


def test_a_volume_that_is_too_large_is_refused(platform: Namespace) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "too-large"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "900Ti"}},
        },
    }
    refused = platform.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--filename", "-"),
        text=_json(claim),
        check=False,
    )
    assert refused.returncode != 0
    assert "storage" in refused.stderr


def _json(value: Json) -> str:
    return json.dumps(value)
