"""What KubeRay 1.7's operator refuses although the CRDs' schemas accept it.

An object that breaks such a rule is stored by the API server, and then nothing happens except for a
warning event. The rules are those of the operator's own validation.
"""

import itertools
import re
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

from tests.k8s.cron import cron_problem

Object = dict[str, Any]
Rule = Callable[[str, Object], Iterator[str]]

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LONGEST = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}
# Fields that the operator refuses unless a feature gate, which is off by default, is on.
_GATED = {
    "networkPolicy": "RayClusterNetworkPolicy",
    "tlsOptions": "RayClusterMTLS",
    "historyServerOptions": "RayClusterHistoryServer",
}
_AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"
_DELETION_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")


def problems(document: Object, gates: frozenset[str] = frozenset()) -> list[str]:
    """Returns what the operator refuses in an object, with `gates` turned on."""
    return list(_problems(document["kind"], document, gates))


def _problems(kind: str, document: Object, gates: frozenset[str]) -> Iterator[str]:
    spec = document["spec"]
    yield from _name(kind, document["metadata"]["name"])
    if kind == "RayCronJob":
        if "RayCronJob" not in gates:
            yield "RayCronJob is alpha: it needs the feature gate RayCronJob"
        yield from _schedule(spec)
        yield from _job(spec["jobTemplate"], gates)
    elif kind == "RayJob":
        yield from _job(spec, gates)
    elif kind == "RayService":
        yield from _service(spec, gates)
    else:
        yield from _cluster(spec, gates)


def _name(kind: str, name: str) -> Iterator[str]:
    if len(name) > _LONGEST[kind]:
        yield f"the name of a {kind} has at most {_LONGEST[kind]} characters"
    if not _DNS_1035.fullmatch(name):
        yield f"the name {name!r} is not a DNS-1035 label"


def _schedule(spec: Object) -> Iterator[str]:
    if "TZ" in spec["schedule"]:
        yield "schedule: say the time zone in timeZone"
    elif problem := cron_problem(spec["schedule"]):
        yield f"schedule: {problem}"
    if "timeZone" in spec and spec["timeZone"] not in zoneinfo.available_timezones():
        yield f"timeZone: there is no {spec['timeZone']!r}"


def _job(spec: Object, gates: frozenset[str]) -> Iterator[str]:
    does_shut_down = spec.get("shutdownAfterJobFinishes", False)
    cluster, selector = spec.get("rayClusterSpec"), spec.get("clusterSelector")
    mode = spec.get("submissionMode", "K8sJobMode")
    if spec.get("suspend") and not does_shut_down:
        yield "suspend needs shutdownAfterJobFinishes"
    if spec.get("ttlSecondsAfterFinished", 0) < 0:
        yield "ttlSecondsAfterFinished is negative"
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not does_shut_down:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if "deletionStrategy" in spec:
        yield from _deletion(spec["deletionStrategy"], spec)
    if cluster is None and not selector:
        yield "one of rayClusterSpec and clusterSelector must be set"
    if selector:
        yield from _selected(spec, selector, mode)
    if mode == "SidecarMode":
        yield from _sidecar(spec, cluster)
    yield from _limits(spec, mode)
    if cluster is not None:
        yield from _cluster(cluster, gates, owner="RayJob")


def _limits(spec: Object, mode: str) -> Iterator[str]:
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(field, 1) <= 0:
            yield f"{field} must be positive"
    if spec.get("backoffLimit", 0) < 0:
        yield "backoffLimit is negative"
    if spec.get("backoffLimit", 0) > 0 and mode == "InteractiveMode":
        yield "backoffLimit does not go with InteractiveMode"


def _selected(spec: Object, selector: Object, mode: str) -> Iterator[str]:
    if not selector.get("ray.io/cluster"):
        yield "clusterSelector must name the cluster in ray.io/cluster"
    if spec.get("suspend"):
        yield "clusterSelector does not go with suspend"
    if mode == "SidecarMode":
        yield "clusterSelector does not go with SidecarMode"
    if spec.get("backoffLimit", 0) > 0:
        yield "clusterSelector does not go with backoffLimit"


def _sidecar(spec: Object, cluster: Object | None) -> Iterator[str]:
    for field in ("submitterPodTemplate", "submitterConfig"):
        if field in spec:
            yield f"SidecarMode does not go with {field}"
    if cluster is not None and _restart_policy(cluster["headGroupSpec"]) not in (None, "Never"):
        yield "SidecarMode: the head's restartPolicy must be Never"


def _deletion(strategy: Object, spec: Object) -> Iterator[str]:
    rules = strategy.get("deletionRules", [])
    legacy = [strategy.get("onSuccess"), strategy.get("onFailure")]
    scales = bool((spec.get("rayClusterSpec") or {}).get("enableInTreeAutoscaling"))
    policies = [rule.get("policy") for rule in [*rules, *filter(None, legacy)]]
    if rules and spec.get("shutdownAfterJobFinishes"):
        yield "deletionRules and shutdownAfterJobFinishes exclude each other"
    if rules and any(legacy):
        yield "deletionRules and onSuccess or onFailure exclude each other"
    if not rules and not all(legacy):
        yield "deletionStrategy needs deletionRules, or both onSuccess and onFailure"
    if scales and "DeleteWorkers" in policies:
        yield "DeleteWorkers does not go with the autoscaler"
    if spec.get("clusterSelector") and {"DeleteWorkers", "DeleteCluster"} & set(policies):
        yield "clusterSelector: the cluster of others is not deleted"
    yield from _deletion_times(rules)


def _deletion_times(rules: list[Object]) -> Iterator[str]:
    by_condition: dict[str, dict[str, int]] = {}
    for rule in rules:
        condition = rule["condition"]
        states = [condition.get("jobStatus"), condition.get("jobDeploymentStatus")]
        if sum(state is not None for state in states) != 1:
            yield "a deletion rule names one of jobStatus and jobDeploymentStatus"
            continue
        times = by_condition.setdefault(str(states), {})
        if rule["policy"] in times:
            yield f"two deletion rules for {rule['policy']} under the same condition"
        times[rule["policy"]] = condition.get("ttlSeconds", 0)
    for times in by_condition.values():
        in_order = [times[policy] for policy in _DELETION_ORDER if policy in times]
        if any(value < 0 for value in in_order) or in_order != sorted(in_order):
            yield "ttlSeconds must not be negative, and workers go before the cluster"


def _service(spec: Object, gates: frozenset[str]) -> Iterator[str]:
    cluster = spec["rayClusterConfig"]
    strategy = spec.get("upgradeStrategy", {})
    if cluster["headGroupSpec"].get("headService", {}).get("metadata", {}).get("name"):
        yield "headService: KubeRay names it"
    if strategy.get("type", "NewCluster") not in (
        "None",
        "NewCluster",
        "NewClusterWithIncrementalUpgrade",
    ):
        yield f"upgradeStrategy: there is no {strategy['type']}"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds is negative"
    if strategy.get("type") == "NewClusterWithIncrementalUpgrade":
        yield from _upgrade(strategy.get("clusterUpgradeOptions"), cluster)
    ports = [
        port.get("name", "")
        for container in cluster["headGroupSpec"]["template"]["spec"]["containers"]
        for port in container.get("ports", [])
    ]
    if not any(name == "serve" or name.startswith("serve-") for name in ports):
        yield "the head has no port named serve, so there would be no Service"
    yield from _cluster(cluster, gates, owner="RayService")


def _upgrade(options: Object | None, cluster: Object) -> Iterator[str]:
    if not cluster.get("enableInTreeAutoscaling"):
        yield "an incremental upgrade needs the autoscaler"
    if options is None:
        yield "an incremental upgrade needs clusterUpgradeOptions"
        return
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", -1)
    if not 0 <= step <= surge <= 100:
        yield "0 <= stepSizePercent <= maxSurgePercent <= 100 does not hold"
    if options.get("intervalSeconds", 0) <= 0:
        yield "intervalSeconds must be positive"
    if not options.get("gatewayClassName"):
        yield "an incremental upgrade needs gatewayClassName"


def _cluster(spec: Object, gates: frozenset[str], owner: str = "") -> Iterator[str]:
    head, workers = spec["headGroupSpec"], spec.get("workerGroupSpecs", [])
    scales = bool(spec.get("enableInTreeAutoscaling"))
    version = spec.get("autoscalerOptions", {}).get("version")
    for field in _GATED.keys() & spec.keys():
        if _GATED[field] not in gates:
            yield f"{field} needs the feature gate {_GATED[field]}"
    for name, group in [("head", head), *((group["groupName"], group) for group in workers)]:
        yield from _group(name, group)
        if scales and version == "v2" and _restart_policy(group) not in (None, "Never"):
            yield f"{name}: autoscaler v2 needs restartPolicy Never"
    for group in workers:
        yield from _replicas(group, scales=scales, version=version)
    if owner and spec.get("upgradeStrategy", {}).get("type"):
        yield f"upgradeStrategy of a cluster that belongs to a {owner}"
    yield from _autoscaler(spec, scales=scales, version=version)
    yield from _authentication(spec, owner)
    yield from _fault_tolerance(spec, gates)


def _group(name: str, group: Object) -> Iterator[str]:
    start = group.get("rayStartParams", {})
    if not group["template"]["spec"].get("containers"):
        yield f"{name}: no container"
    if "labels" in start:
        yield f"{name}: labels belong into the group's `labels`, not into rayStartParams"
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & start.keys():
        yield f"{name}: resources both in rayStartParams and in resources"
    for key, value in group.get("labels", {}).items():
        if not _LABEL_VALUE.fullmatch(value) or len(value) > 63:
            yield f"{name}: {key}={value!r} is not a label"


def _replicas(group: Object, *, scales: bool, version: str | None) -> Iterator[str]:
    name, least, most = group["groupName"], group.get("minReplicas"), group.get("maxReplicas")
    if not scales and (least is None or most is None):
        yield f"{name}: minReplicas and maxReplicas must be set without the autoscaler"
    if any(number is not None and number < 0 for number in (least, most)):
        yield f"{name}: a negative number of replicas"
    if least is not None and most is not None and least > most:
        yield f"{name}: minReplicas {least} is above maxReplicas {most}"
    if group.get("suspend") and scales:
        yield f"{name}: suspend does not go with the autoscaler"
    if "idleTimeoutSeconds" in group and (version != "v2" or group["idleTimeoutSeconds"] < 0):
        yield f"{name}: idleTimeoutSeconds needs autoscaler v2, and is not negative"
    if group.get("priority", 0) != 0 and version != "v2":
        yield f"{name}: priority needs autoscaler v2"


def _autoscaler(spec: Object, *, scales: bool, version: str | None) -> Iterator[str]:
    options = spec.get("autoscalerOptions", {})
    variable = _head_environment(spec).get(_AUTOSCALER_V2)
    if not scales and variable in ("1", "true"):
        yield f"{_AUTOSCALER_V2} without enableInTreeAutoscaling"
    if scales and version and variable is not None:
        yield f"both autoscalerOptions.version and {_AUTOSCALER_V2}"
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds is negative"


def _authentication(spec: Object, owner: str) -> Iterator[str]:
    options = spec.get("authOptions", {})
    uses_kubernetes = options.get("enableK8sTokenAuth", False)
    if uses_kubernetes and owner:
        yield f"authOptions.enableK8sTokenAuth does not go with a {owner}"
    if options.get("mode") != "token":
        if uses_kubernetes:
            yield "authOptions.enableK8sTokenAuth needs mode token"
        return
    needed = (2, 55) if uses_kubernetes else (2, 52)
    version = re.match(r"(\d+)\.(\d+)", spec.get("rayVersion", ""))
    if version is None or (int(version[1]), int(version[2])) < needed:
        yield f"authOptions needs rayVersion {needed[0]}.{needed[1]} or later"
    if uses_kubernetes and options.get("secretName"):
        yield "authOptions: both enableK8sTokenAuth and secretName"


def _fault_tolerance(spec: Object, gates: frozenset[str]) -> Iterator[str]:
    options = spec.get("gcsFaultToleranceOptions")
    start, variables = spec["headGroupSpec"].get("rayStartParams", {}), _head_environment(spec)
    if "redis-username" in start or "REDIS_USERNAME" in variables:
        yield "the user of Redis belongs into gcsFaultToleranceOptions.redisUsername"
    if options is None:
        if "RAY_REDIS_ADDRESS" in variables:
            yield "RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
        return
    if "redis-password" in start or "REDIS_PASSWORD" in variables:
        yield "the password of Redis belongs into gcsFaultToleranceOptions.redisPassword"
    if "RAY_REDIS_ADDRESS" in variables:
        yield "the address of Redis belongs into gcsFaultToleranceOptions.redisAddress"
    if options.get("backend") == "rocksdb" and "GCSFaultToleranceEmbeddedStorage" not in gates:
        yield "the backend rocksdb needs the feature gate GCSFaultToleranceEmbeddedStorage"
    if options.get("backend", "redis") == "redis" and "storage" in options:
        yield "gcsFaultToleranceOptions.storage belongs to the backend rocksdb"


def _restart_policy(group: Object) -> str | None:
    policy: str | None = group["template"]["spec"].get("restartPolicy")
    return policy


def _head_environment(spec: Object) -> dict[str, str]:
    containers = spec["headGroupSpec"]["template"]["spec"].get("containers", [])
    lists = (container.get("env", []) for container in containers[:1])
    return {item["name"]: item.get("value", "") for item in itertools.chain.from_iterable(lists)}
