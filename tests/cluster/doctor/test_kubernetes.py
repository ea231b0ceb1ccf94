"""`rlcar doctor --kubernetes`: what it finds on a cluster."""

import pytest

from cluster.doctor.kubernetes import examine_kubernetes
from cluster.doctor.kubernetes_resources import quantity
from cluster.jobs.kubernetes.connect import Target
from cluster.jobs.kubernetes.paths import DEPLOYMENTS, LOCAL_QUEUES, NODES, QUOTAS


def findings(kube, kubeconfig=None):
    target = Target(str(kubeconfig or kube.kubeconfig), None, kube.namespace)
    found = examine_kubernetes(target)
    return {finding.check: finding for finding in reversed(found)}


def add_operator(kube, image="quay.io/kuberay/operator:v1.7.0", replicas=1):
    labels = {"app.kubernetes.io/name": "kuberay-operator"}
    container = {"name": "operator", "image": image, "args": ["--feature-gates=RayCronJob=true"]}
    body = {
        "metadata": {"name": "kuberay-operator", "labels": labels},
        "spec": {"template": {"spec": {"containers": [container]}}},
        "status": {"availableReplicas": replicas},
    }
    kube.api.create(DEPLOYMENTS, body)


def test_a_good_cluster_has_no_problem(kube, fake):
    add_operator(kube)
    found = findings(kube)
    assert {finding.state for finding in found.values()} <= {"ok", "warning"}, found
    assert "version v1.36.2" in found["API server"].found
    assert found["rights"].found == "all 14 that the commands use"
    assert found["RayJob"].state == "ok"
    assert found["feature gates"].found == "RayCronJob is on, which overlay cron-ray needs"


def test_missing_rights_are_listed(kube, fake):
    rule = {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "list"]}
    found = findings(kube, kube.user_with([rule]))
    assert "create rayjobs.ray.io, patch rayjobs.ray.io, delete" in found["rights"].found
    assert "rlcar-submitter" in found["rights"].fix
    assert "may not create rayjobs.ray.io" in found["RayJob"].found


@pytest.mark.parametrize(
    ("image", "replicas", "text"),
    [
        ("quay.io/kuberay/operator:v1.4.2", 1, "version v1.4.2 is too old"),
        ("quay.io/kuberay/operator:v1.7.0", 0, "does not run"),
    ],
)
def test_a_bad_operator_is_a_problem(kube, fake, image, replicas, text):
    add_operator(kube, image, replicas)
    operator = findings(kube)["operator"]
    assert operator.state == "problem"
    assert text in operator.found


def test_missing_crds_quota_queue_and_storage_are_found(kube, fake):
    hard = {"requests.cpu": "8", "pods": "10"}
    status = {"hard": hard, "used": {"requests.cpu": "8000m", "pods": "1"}}
    kube.api.create(QUOTAS, {"metadata": {"name": "team"}, "status": status})
    conditions = [{"type": "Active", "status": "False", "message": "no ClusterQueue"}]
    queue = {"metadata": {"name": "night"}, "status": {"conditions": conditions}}
    kube.api.create(LOCAL_QUEUES, queue)
    kube.api.create(NODES, {"metadata": {"name": "n"}, "status": {"allocatable": {}}})
    fake.missing_groups.add("ray.io")
    found = findings(kube)
    assert found["CRDs"].state == "problem"
    assert "kubectl apply --server-side" in found["CRDs"].fix
    assert found["quota"].found == "team is used up: requests.cpu 8000m of 8"
    assert found["queue"].found == "night: no ClusterQueue"
    assert found["GPU"].found == "none on 1 nodes, which only --gpus needs"
    assert found["storage class"].state == "warning"


def test_without_access_one_finding_says_why(kube, fake, tmp_path):
    (only,) = examine_kubernetes(Target(str(tmp_path / "absent")))
    assert (only.check, only.state) == ("kubeconfig", "problem")
    wrong = kube.write_kubeconfig({"token": "wrong"}, "wrong")
    found = examine_kubernetes(Target(str(wrong), None, kube.namespace))
    assert [finding.check for finding in found] == ["API server"]
    assert "does not accept your credentials" in found[0].found


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("2", 2.0), ("4Gi", 4 * 2**30), ("1k", 1000.0), ("1.5G", 1.5e9), ("x", 0.0)],
)
def test_quantities_are_read(text, value):
    assert quantity(text) == value
