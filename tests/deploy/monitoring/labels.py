"""The labels that each alert carries, derived from its expression and from the scraped targets."""

import functools
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser

from docs._generate.metrics import (
    Exported,
    exported_metrics,
    live_metrics,
    observed_metrics,
    server_metrics,
)
from rlcar.config import make_config
from rlcar.runs.exporter import TARGETS, exporting
from rlcar.system.host_metrics import HOST
from tests.deploy.monitoring.rules import MONITORING, alerts, read

DEPLOYMENTS = ("hosts", "compose", "Kubernetes")
Names = frozenset[str]  # names of labels
_OF_A_POD = {"job", "instance", "namespace", "pod", "container", "endpoint"}
# Labels that Ray adds to every series, and those of other programs' metrics that rules select.
_OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
_OTHERS = {
    "ray_node_mem_used": ("ray", {"ip", *_OF_RAY}),
    "ray_node_mem_total": ("ray", {"ip", *_OF_RAY}),
    "ray_node_disk_free": ("ray", {"ip", *_OF_RAY}),
    "ray_node_cpu_utilization": ("ray", {"ip", *_OF_RAY}),
    "ray_node_gpus_utilization": ("ray", {"ip", "GpuIndex", "GpuDeviceName", *_OF_RAY}),
    "ray_object_store_used_memory": ("ray", {*_OF_RAY}),
    "process_resident_memory_bytes": ("rlcar-training", set[str]()),
    "ALERTS": ("prometheus", {"alertname", "alertstate", "severity", "run"}),
    "prometheus_notifications_errors_total": ("prometheus", {"alertmanager"}),
    "prometheus_notifications_alertmanagers_discovered": ("prometheus", set[str]()),
    "prometheus_rule_evaluation_failures_total": ("prometheus", {"rule_group"}),
    "alertmanager_notifications_failed_total": ("alertmanager", {"integration", "reason"}),
}


def labels_of_alert(alert: str, deployment: str) -> set[Names]:
    """What an alert may carry; each operand of an `or` and each exporter is a possibility."""
    rule = alerts()[alert]
    return {one | set(rule["labels"]) for one in labels_of_query(rule["expr"], deployment)}


def labels_of_query(query: str, deployment: str) -> set[Names]:
    """What the series that a query yields may carry."""
    return _labels(promql_parser.parse(query), deployment)


@functools.cache
def targets(deployment: str) -> dict[str, set[str]]:
    """The labels of the targets of each job."""
    if deployment == "Kubernetes":
        return _pods()
    name = {"hosts": "prometheus-host.yaml", "compose": "prometheus.yaml"}[deployment]
    found = {}
    for job in read(MONITORING / name)["scrape_configs"]:
        replaced = {one["target_label"] for one in job.get("relabel_configs", [])}
        is_announced = any(TARGETS in str(one) for one in job.get("file_sd_configs", []))
        announced = _announced() if is_announced else set()
        found[job["job_name"]] = {"job", "instance", *replaced, *announced}
    return {"rlcar-page": {"job", "instance"}} | found


def _pods() -> dict[str, set[str]]:
    # The operator's own Prometheus is scraped through objects of its chart.
    found = dict.fromkeys(("prometheus", "alertmanager"), {"service", *_OF_A_POD})
    for file in (MONITORING / "kubernetes").glob("*monitor-*.yaml"):
        monitor = read(file)["spec"]
        of_a_service = {"service"} if "endpoints" in monitor else set()
        for endpoint in monitor.get("endpoints") or monitor["podMetricsEndpoints"]:
            rules = [one for one in endpoint["relabelings"] if "targetLabel" in one]
            labels = {one["targetLabel"] for one in rules} | _OF_A_POD | of_a_service
            for name in _job_names(next(one for one in rules if one["targetLabel"] == "job")):
                found[name] = labels
    return found


def _job_names(relabeling: dict[str, Any]) -> list[str]:
    """The jobs of a rule that names them after the component of a Service, or the one job."""
    name = relabeling["replacement"]
    return [name.replace("$1", one) for one in ("server", "page")] if "$1" in name else [name]


@functools.cache
def _announced() -> set[str]:
    """The labels with which a training announces its port."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "runs" / "announced"
        run.mkdir(parents=True)
        with exporting(make_config(mode="test"), run, 0):
            (file,) = (run.parent / TARGETS).glob("*.json")
            return set(json.loads(file.read_text())[0]["labels"])


@functools.cache
def _exports() -> dict[str, list[tuple[str, set[str]]]]:
    """For each metric, the jobs that export it, each with the labels of its series."""
    found = defaultdict(list)
    host = {one.name for one in HOST}
    for one in exported_metrics():
        own = set() if one.name in host else {*one.labels}
        observers = (
            ("rlcar-runs", "rlcar-server", "rlcar-page") if one.name in host else ("rlcar-runs",)
        )
        for name, labels in _series_of(one):
            found[name] = [("rlcar-training", labels), ("ray", {*labels, *_OF_RAY})]
            # Observers export no histograms.
            found[name] += [(job, own) for job in observers] if one.kind == "gauge" else []
    for one in observed_metrics():
        found[one.name].append(("rlcar-runs", {*one.labels}))
    for one in (*server_metrics(), *live_metrics()):
        for name, labels in _series_of(one):
            found[name] += [("rlcar-server", labels), ("rlcar-page", labels)]
    for name, exported in _OTHERS.items():
        found[name].append(exported)
    return dict(found)


def _series_of(metric: Exported) -> Iterator[tuple[str, set[str]]]:
    """The names under which a metric is stored, each with its labels."""
    if metric.kind != "histogram":
        yield metric.name, {*metric.labels}
        return
    yield f"{metric.name}_bucket", {*metric.labels, "le"}
    yield f"{metric.name}_sum", {*metric.labels}
    yield f"{metric.name}_count", {*metric.labels}


def _labels(expression: Any, deployment: str) -> set[Names]:
    """The labels of what an expression yields; the empty set for a number."""
    match expression:
        case promql_parser.MatrixSelector():
            return _labels(expression.vector_selector, deployment)
        case promql_parser.VectorSelector():
            return set(_selected(expression, deployment))
        case promql_parser.AggregateExpr():
            modifier = expression.modifier
            listed = set(modifier.labels) if modifier else set()
            assert not modifier or modifier.type == promql_parser.AggModifierType.By
            return {one & listed for one in _labels(expression.expr, deployment)}
        case promql_parser.Call():
            return _called(expression, deployment)
        case promql_parser.BinaryExpr():
            return _combined(expression, deployment)
    return _labels(expression.expr, deployment) if hasattr(expression, "expr") else set()


def _selected(selector: Any, deployment: str) -> Iterator[Names]:
    jobs = targets(deployment)
    exports = [(job, set[str]()) for job in jobs] if selector.name == "up" else _exports()
    found = exports if isinstance(exports, list) else exports[selector.name]
    for job, own in found:
        if all(_accepts(one, job) for one in selector.matchers.matchers if one.name == "job"):
            # Where both have a label, as a training and its target have `run`, its value is equal.
            yield frozenset(own | jobs[job])


def _accepts(matcher: Any, job: str) -> bool:
    kinds = promql_parser.MatchOp
    if matcher.op in (kinds.Equal, kinds.NotEqual):
        return (matcher.value == job) == (matcher.op == kinds.Equal)
    return bool(re.fullmatch(matcher.value, job)) == (matcher.op == kinds.Re)


def _called(call: Any, deployment: str) -> set[Names]:
    found = {one for argument in call.args for one in _labels(argument, deployment)}
    if call.func.name == "label_replace":
        return {one | {call.args[1].val} for one in found}
    return {one - {"le"} for one in found} if call.func.name == "histogram_quantile" else found


def _combined(binary: Any, deployment: str) -> set[Names]:
    left, right = _labels(binary.lhs, deployment), _labels(binary.rhs, deployment)
    if str(binary.op) == "or":
        return left | right
    if str(binary.op) in ("and", "unless") or not (left and right):
        return left or right
    matching = binary.modifier and binary.modifier.matching
    assert not matching, "two vectors are compared by all labels: extend this function"
    return left
