"""The lint of what KubeRay's operator refuses: each rule with a manifest that breaks it."""

import copy

import pytest

from tests.k8s.manifests import needs_kustomize, of_kind, rendered
from tests.k8s.operator_rules import problems

_CLUSTER = "spec/rayClusterSpec"
_HEAD = f"{_CLUSTER}/headGroupSpec"
_HEAD_ENV = f"{_HEAD}/template/spec/containers/0/env/0"
_SERVE = "spec/rayClusterConfig"
_FAULT_TOLERANT = "spec/gcsFaultToleranceOptions"
_UPGRADE = "spec/upgradeStrategy/clusterUpgradeOptions"
_REMOVE = object()
_RULE = {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}}
_WORKERS_LATER = {"policy": "DeleteWorkers", "condition": {"jobStatus": "FAILED", "ttlSeconds": 90}}
_NO_SHUTDOWN = {"spec/shutdownAfterJobFinishes": False, "spec/ttlSecondsAfterFinished": 0}
_EXISTING = {"spec/rayClusterSpec": _REMOVE, "spec/clusterSelector": {"ray.io/cluster": "c"}}
_NO_RETRY = {"spec/backoffLimit": 0}

# overlay, kind, changes, and words of the problem that they cause
RULES = [
    ("gpu", "RayJob", {"metadata/name": "x" * 48}, "at most 47"),
    ("serve-ray", "RayService", {"metadata/name": "x" * 48}, "at most 47"),
    ("fault-tolerant", "RayCluster", {"metadata/name": "x" * 54}, "at most 53"),
    ("cron-ray", "RayCronJob", {"metadata/name": "x" * 37}, "at most 36"),
    ("gpu", "RayJob", {"metadata/name": "7-trains"}, "DNS-1035"),
    ("gpu", "RayJob", {"metadata/name": "Train"}, "DNS-1035"),
    ("gpu", "RayJob", {f"{_HEAD}/rayStartParams/labels": "role=sim"}, "rayStartParams"),
    ("gpu", "RayJob", {f"{_HEAD}/resources": {"CPU": "1"}}, "both in rayStartParams"),
    ("gpu", "RayJob", {f"{_CLUSTER}/workerGroupSpecs/0/labels/role": "a b"}, "is not a label"),
    ("gpu", "RayJob", {f"{_HEAD}/template/spec/containers": []}, "no container"),
    ("gpu", "RayJob", {f"{_CLUSTER}/workerGroupSpecs/1/minReplicas": _REMOVE}, "must be set"),
    ("gpu", "RayJob", {f"{_CLUSTER}/workerGroupSpecs/1/maxReplicas": _REMOVE}, "must be set"),
    ("gpu", "RayJob", {f"{_CLUSTER}/workerGroupSpecs/1/minReplicas": 65}, "above maxReplicas"),
    ("gpu", "RayJob", {f"{_CLUSTER}/workerGroupSpecs/1/minReplicas": -1}, "negative number"),
    ("gpu", "RayJob", {f"{_CLUSTER}/workerGroupSpecs/1/idleTimeoutSeconds": 9}, "autoscaler v2"),
    ("gpu", "RayJob", {f"{_CLUSTER}/workerGroupSpecs/1/priority": 1}, "priority needs"),
    (
        "autoscaling",
        "RayJob",
        {f"{_HEAD}/template/spec/restartPolicy": "Always"},
        "restartPolicy Never",
    ),
    (
        "autoscaling",
        "RayJob",
        {f"{_CLUSTER}/workerGroupSpecs/0/template/spec/restartPolicy": "OnFailure"},
        "restartPolicy Never",
    ),
    (
        "autoscaling",
        "RayJob",
        {f"{_CLUSTER}/workerGroupSpecs/0/suspend": True},
        "suspend does not go",
    ),
    (
        "autoscaling",
        "RayJob",
        {f"{_CLUSTER}/autoscalerOptions/idleTimeoutSeconds": -1},
        "is negative",
    ),
    (
        "autoscaling",
        "RayJob",
        {_HEAD_ENV: {"name": "RAY_enable_autoscaler_v2", "value": "1"}},
        "both autoscalerOptions.version",
    ),
    (
        "gpu",
        "RayJob",
        {_HEAD_ENV: {"name": "RAY_enable_autoscaler_v2", "value": "true"}},
        "without enableInTreeAutoscaling",
    ),
    ("gpu", "RayJob", {f"{_CLUSTER}/rayVersion": "2.51.0"}, "2.52 or later"),
    ("gpu", "RayJob", {f"{_CLUSTER}/rayVersion": _REMOVE}, "2.52 or later"),
    ("gpu", "RayJob", {f"{_CLUSTER}/authOptions/enableK8sTokenAuth": True}, "go with a RayJob"),
    (
        "serve-ray",
        "RayService",
        {f"{_SERVE}/authOptions/enableK8sTokenAuth": True},
        "go with a RayService",
    ),
    (
        "fault-tolerant",
        "RayCluster",
        {"spec/authOptions": {"enableK8sTokenAuth": True}},
        "needs mode token",
    ),
    (
        "fault-tolerant",
        "RayCluster",
        {"spec/authOptions": {"mode": "token", "enableK8sTokenAuth": True, "secretName": "s"}},
        "both enableK8sTokenAuth and secretName",
    ),
    ("gpu", "RayJob", {"spec/deletionStrategy": {"deletionRules": [_RULE]}}, "exclude each other"),
    (
        "gpu",
        "RayJob",
        {**_NO_SHUTDOWN, "spec/deletionStrategy": {"deletionRules": [_RULE, _RULE]}},
        "two deletion rules",
    ),
    (
        "gpu",
        "RayJob",
        {**_NO_SHUTDOWN, "spec/deletionStrategy": {"deletionRules": [_RULE, _WORKERS_LATER]}},
        "workers go before the cluster",
    ),
    (
        "gpu",
        "RayJob",
        {
            **_NO_SHUTDOWN,
            "spec/deletionStrategy": {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]},
        },
        "one of jobStatus and jobDeploymentStatus",
    ),
    ("gpu", "RayJob", {**_NO_SHUTDOWN, "spec/deletionStrategy": {}}, "needs deletionRules"),
    ("gpu", "RayJob", {"spec/shutdownAfterJobFinishes": False}, "ttlSecondsAfterFinished needs"),
    ("gpu", "RayJob", {"spec/ttlSecondsAfterFinished": -1}, "is negative"),
    (
        "autoscaling",
        "RayJob",
        {**_NO_SHUTDOWN, "spec/deletionStrategy": {"deletionRules": [_WORKERS_LATER]}},
        "DeleteWorkers does not go",
    ),
    ("gpu", "RayJob", {**_NO_SHUTDOWN, "spec/suspend": True}, "suspend needs"),
    ("gpu", "RayJob", {"spec/rayClusterSpec": _REMOVE}, "one of rayClusterSpec"),
    ("gpu", "RayJob", _EXISTING, "not go with backoffLimit"),
    ("gpu", "RayJob", {**_EXISTING, **_NO_RETRY, "spec/suspend": True}, "not go with suspend"),
    (
        "gpu",
        "RayJob",
        {**_EXISTING, **_NO_RETRY, "spec/submissionMode": "SidecarMode"},
        "clusterSelector does not go with SidecarMode",
    ),
    (
        "gpu",
        "RayJob",
        {**_EXISTING, **_NO_RETRY, "spec/clusterSelector": {"name": "c"}},
        "must name the cluster",
    ),
    ("gpu", "RayJob", {"spec/submissionMode": "SidecarMode"}, "go with submitterPodTemplate"),
    ("gpu", "RayJob", {"spec/submissionMode": "SidecarMode"}, "go with submitterConfig"),
    (
        "gpu",
        "RayJob",
        {"spec/submissionMode": "SidecarMode", f"{_HEAD}/template/spec/restartPolicy": "Always"},
        "restartPolicy must be Never",
    ),
    ("gpu", "RayJob", {"spec/submissionMode": "InteractiveMode"}, "not go with InteractiveMode"),
    ("gpu", "RayJob", {"spec/activeDeadlineSeconds": 0}, "must be positive"),
    ("gpu", "RayJob", {"spec/preRunningDeadlineSeconds": 0}, "must be positive"),
    ("gpu", "RayJob", {"spec/backoffLimit": -1}, "backoffLimit is negative"),
    (
        "gpu",
        "RayJob",
        {f"{_CLUSTER}/upgradeStrategy": {"type": "Recreate"}},
        "belongs to a RayJob",
    ),
    (
        "fault-tolerant",
        "RayCluster",
        {
            "spec/headGroupSpec/template/spec/containers/0/env/0": {
                "name": "REDIS_PASSWORD",
                "value": "x",
            }
        },
        "redisPassword",
    ),
    (
        "fault-tolerant",
        "RayCluster",
        {"spec/headGroupSpec/rayStartParams/redis-password": "x"},
        "redisPassword",
    ),
    (
        "fault-tolerant",
        "RayCluster",
        {"spec/headGroupSpec/rayStartParams/redis-username": "x"},
        "redisUsername",
    ),
    (
        "fault-tolerant",
        "RayCluster",
        {
            "spec/headGroupSpec/template/spec/containers/0/env/0": {
                "name": "RAY_REDIS_ADDRESS",
                "value": "x",
            }
        },
        "redisAddress",
    ),
    (
        "gpu",
        "RayJob",
        {_HEAD_ENV: {"name": "RAY_REDIS_ADDRESS", "value": "x"}},
        "without gcsFaultToleranceOptions",
    ),
    ("fault-tolerant", "RayCluster", {f"{_FAULT_TOLERANT}/backend": "rocksdb"}, "feature gate"),
    ("fault-tolerant", "RayCluster", {f"{_FAULT_TOLERANT}/storage": {}}, "backend rocksdb"),
    ("gpu", "RayJob", {f"{_CLUSTER}/networkPolicy": {}}, "feature gate RayClusterNetworkPolicy"),
    ("gpu", "RayJob", {f"{_CLUSTER}/tlsOptions": {}}, "feature gate RayClusterMTLS"),
    (
        "gpu",
        "RayJob",
        {f"{_CLUSTER}/historyServerOptions": {}},
        "feature gate RayClusterHistoryServer",
    ),
    (
        "serve-ray-upgrade",
        "RayService",
        {f"{_SERVE}/enableInTreeAutoscaling": False},
        "needs the autoscaler",
    ),
    (
        "serve-ray-upgrade",
        "RayService",
        {f"{_UPGRADE}/gatewayClassName": ""},
        "needs gatewayClassName",
    ),
    ("serve-ray-upgrade", "RayService", {f"{_UPGRADE}/stepSizePercent": 50}, "does not hold"),
    ("serve-ray-upgrade", "RayService", {f"{_UPGRADE}/intervalSeconds": 0}, "must be positive"),
    ("serve-ray-upgrade", "RayService", {_UPGRADE: _REMOVE}, "needs clusterUpgradeOptions"),
    ("serve-ray", "RayService", {"spec/upgradeStrategy/type": "Recreate"}, "there is no Recreate"),
    ("serve-ray", "RayService", {"spec/rayClusterDeletionDelaySeconds": -1}, "is negative"),
    (
        "serve-ray",
        "RayService",
        {f"{_SERVE}/headGroupSpec/headService": {"metadata": {"name": "mine"}}},
        "KubeRay names it",
    ),
    (
        "serve-ray",
        "RayService",
        {f"{_SERVE}/headGroupSpec/template/spec/containers/0/ports": []},
        "no port named serve",
    ),
    ("cron-ray", "RayCronJob", {"spec/schedule": "99 * * * *"}, "is no minute"),
    ("cron-ray", "RayCronJob", {"spec/schedule": "TZ=UTC 0 * * * *"}, "time zone in timeZone"),
    ("cron-ray", "RayCronJob", {"spec/timeZone": "Mars/Base"}, "there is no 'Mars/Base'"),
    ("cron-ray", "RayCronJob", {"spec/jobTemplate/backoffLimit": -1}, "is negative"),
]


def _apply(document, changes):
    for path, value in changes.items():
        *parents, last = path.split("/")
        place = document
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place[name]
        key = int(last) if isinstance(place, list) else last
        if value is _REMOVE:
            del place[key]
        else:
            place[key] = value
    return document


@needs_kustomize
@pytest.mark.parametrize(("overlay", "kind", "changes", "words"), RULES)
def test_a_manifest_that_breaks_a_rule_is_found(overlay, kind, changes, words):
    sound = of_kind(rendered(overlay), kind)[0]
    gates = frozenset({"RayCronJob"})
    assert problems(sound, gates) == []
    found = problems(_apply(copy.deepcopy(sound), changes), gates)
    assert any(words in problem for problem in found), found


@needs_kustomize
def test_an_alpha_kind_needs_its_gate():
    (one,) = of_kind(rendered("cron-ray"), "RayCronJob")
    assert any("feature gate RayCronJob" in problem for problem in problems(one))
