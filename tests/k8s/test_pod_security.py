"""Every pod, with what KubeRay adds to it, conforms to the profile `restricted`."""

import copy

import pytest

from tests.k8s.manifests import OVERLAYS, needs_kustomize, of_kind, pods, rendered
from tests.k8s.pod_security import own_violations, violations

pytestmark = needs_kustomize

_API = "rlcar/kubernetes-api"  # the label of pods that may call the Kubernetes API
_ON_RAY_NODES = "wait-gcs-ready"
_DRAIN_S = 20.0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_conforms_to_the_profile_restricted(overlay):
    for pod in pods(rendered(overlay)):
        assert violations(pod.spec) == [], pod.owner
        assert list(own_violations(pod.spec)) == [], pod.owner


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_an_autoscaler_has_a_token_for_the_kubernetes_api(overlay):
    for pod in pods(rendered(overlay)):
        has_token = pod.spec.get("automountServiceAccountToken", True)
        assert has_token == (_API in pod.labels), pod.owner


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_for_its_last_checkpoint(overlay):
    for pod in pods(rendered(overlay)):
        if pod.labels.get("app.kubernetes.io/component") == "trainer":
            assert pod.spec["terminationGracePeriodSeconds"] >= 2 * _DRAIN_S, pod.owner
            assert pod.spec["restartPolicy"] == "Never", pod.owner


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_s_object_store_has_a_bounded_place_in_memory(overlay):
    for pod in pods(rendered(overlay)):
        if pod.role not in ("head", "worker"):
            continue
        mounts = {m["mountPath"]: m["name"] for m in pod.spec["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        store = volumes[mounts["/dev/shm"]]["emptyDir"]
        assert store["medium"] == "Memory"
        assert store["sizeLimit"]
        # The head's Services of a RayJob select by KubeRay's own value.
        assert pod.labels["app.kubernetes.io/name"] == "kuberay", pod.owner


def _pod(overlay="gpu", role="head"):
    return copy.deepcopy(next(pod for pod in pods(rendered(overlay)) if pod.role == role).spec)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("hostNetwork", True, "hostNetwork"),
        ("hostPID", True, "hostPID"),
        ("volumes/0", {"name": "x", "hostPath": {"path": "/"}}, "is a hostPath"),
        ("volumes/0", {"name": "x", "nfs": {"server": "a", "path": "/"}}, "is a nfs"),
        ("securityContext/runAsNonRoot", False, "may run as root"),
        ("securityContext/runAsUser", 0, "may run as root"),
        ("securityContext/seccompProfile/type", "Unconfined", "no seccomp profile"),
        ("securityContext/sysctls", [{"name": "kernel.msgmax", "value": "1"}], "sysctls"),
        ("containers/0/securityContext/privileged", True, "privileged"),
        ("containers/0/securityContext/allowPrivilegeEscalation", True, "allowPrivilege"),
        ("containers/0/securityContext/capabilities/drop", [], "keeps capabilities"),
        ("containers/0/securityContext/capabilities/add", ["SYS_ADMIN"], "adds capabilities"),
        ("containers/0/securityContext/procMount", "Unmasked", "procMount"),
        ("containers/0/securityContext/runAsUser", 0, "may run as root"),
        ("containers/0/securityContext", {}, "allowPrivilegeEscalation"),
        ("containers/0/ports/0/hostPort", 80, "port of the host"),
    ],
)
def test_a_violation_is_found(path, value, words):
    spec = _pod()
    *parents, last = path.split("/")
    place = spec
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[int(last) if isinstance(place, list) else last] = value
    assert any(words in problem for problem in violations(spec))


@pytest.mark.parametrize(
    ("overlay", "field", "value", "container"),
    [
        # KubeRay adds these containers, and takes their security context from here or has none.
        ("autoscaling", "rayClusterSpec/autoscalerOptions", {}, "autoscaler"),
        ("gpu", "submissionMode", "SidecarMode", "ray-job-submitter"),
        ("gpu", "submitterPodTemplate", {"spec": {"containers": [{"name": "a"}]}}, "a"),
    ],
)
def test_containers_that_kuberay_adds_are_judged(overlay, field, value, container):
    job = copy.deepcopy(of_kind(rendered(overlay), "RayJob")[0])
    *parents, last = field.split("/")
    place = job["spec"]
    for name in parents:
        place = place[name]
    place[last] = value
    found = [text for pod in pods([job]) for text in violations(pod.spec)]
    assert any(text.startswith(f"{container}:") for text in found)
