"""`rlcar doctor --kubernetes`: what it finds on a cluster."""

import pytest

from cluster.doctor.kubernetes import examine_kubernetes
from cluster.doctor.kubernetes_resources import quantity
from cluster.jobs.kubernetes.connect import Target
from cluster.jobs.kubernetes.paths import (
    DEPLOYMENTS,
    LOCAL_QUEUES,
    NODES,
    QUOTAS,
    RAY_CLUSTERS,
    SERVICE_ACCOUNTS,
)


def all_findings(kube, kubeconfig=None):
    target = Target(str(kubeconfig or kube.kubeconfig), None, kube.namespace)
    return examine_kubernetes(target)


def findings(kube, kubeconfig=None):
    return {finding.check: finding for finding in reversed(all_findings(kube, kubeconfig))}


def add_operator(kube, image="quay.io/kuberay/operator:v1.7.0", replicas=1):
    labels = {"app.kubernetes.io/name": "kuberay-operator"}
    container = {"name": "operator", "image": image, "args": ["--feature-gates=RayCronJob=true"]}
    body = {
        "metadata": {"name": "kuberay-operator", "labels": labels},
        "spec": {"template": {"spec": {"containers": [container]}}},
        "status": {"availableReplicas": replicas},
    }
    kube.api.create(DEPLOYMENTS, body)


@pytest.mark.kubernetes_client
def test_a_cluster_that_is_set_up_has_no_problem(kube):
    kube.add_priority_class("rlcar-training")
    found = findings(kube)
    assert {finding.state for finding in found.values()} <= {"ok", "warning"}, found
    assert found["rights"].found == "all 14 that the commands use"
    assert found["RayJob"].state == "ok"


def test_the_version_and_the_feature_gates_are_found(kube, fake):
    add_operator(kube)
    found = findings(kube)
    assert "version v1.36.2" in found["API server"].found
    assert found["feature gates"].found == "RayCronJob is on, which overlay cron-ray needs"


@pytest.mark.kubernetes_client
def test_missing_rights_are_listed(kube):
    rule = {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "list"]}
    found = findings(kube, kube.user_with([rule]))
    assert "create rayjobs.ray.io, patch rayjobs.ray.io, delete" in found["rights"].found
    assert "rlcar-submitter" in found["rights"].fix
    assert "may not create rayjobs.ray.io" in found["RayJob"].found


@pytest.mark.kubernetes_client
def test_pods_that_were_refused_are_found(kube):
    assert findings(kube)["pods"].state == "ok"
    pod = {"containers": [{"name": "ray-head", "image": "rlcar:1"}], "priorityClassName": "absent"}
    group = {"rayStartParams": {}, "template": {"spec": pod}}
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "refused"}}
    refusal = 'Pod "x" is forbidden: no PriorityClass with name absent was found'
    status = {"type": "ReplicaFailure", "status": "True", "message": refusal}
    spec = {"headGroupSpec": group, "workerGroupSpecs": []}
    # A real operator writes this status itself.
    cluster |= {"spec": spec, "status": {"conditions": [status]}}
    kube.api.create(RAY_CLUSTERS, cluster)
    kube.wait("the refusal", lambda: findings(kube)["pods"].state == "problem")
    assert findings(kube)["pods"].found == "the cluster has no PriorityClass absent"


@pytest.mark.kubernetes_client
def test_a_missing_service_account_is_found(kube):
    kube.api.delete(SERVICE_ACCOUNTS, "rlcar-trainer")
    kube.add_priority_class("rlcar-training")
    found = [f for f in all_findings(kube) if f.check == "RayJob" and f.state == "problem"]
    assert [f.found for f in found] == [
        f"namespace {kube.namespace} has no ServiceAccount rlcar-trainer"
    ]
    assert "apply k8s/base/platform" in found[0].fix


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


@pytest.mark.kubernetes_client
def test_without_access_one_finding_says_why(kube, tmp_path):
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
